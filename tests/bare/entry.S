/*
 * Bare guest: PVH entry (32-bit, paging off, %ebx = start info), 8 GiB mapped one to one in 2 MiB
 * pages, long mode, interrupt stubs that call interrupt(vector). Ring 0 throughout. A second CPU
 * comes by a trampoline in real mode, which start_second_cpu() copies below 1 MiB.
 */
	.section .note.pvh, "a", @note
	.long 4, 4, 18
	.asciz "Xen"
	.long start

	.text
	.code32
	.globl start
start:
	cld
	movl $stack_end, %esp
	movl %ebx, start_info

	/* page tables: one PML4 entry, eight directories */
	movl $pdpt + 7, pml4
	movl $directories + 7, %eax
	movl $pdpt, %edi
	movl $8, %ecx
1:	movl %eax, (%edi)
	addl $4096, %eax
	addl $8, %edi
	loop 1b
	movl $directories, %edi
	movl $0x87, %eax	/* user pages: ring 3 runs here too */
	xorl %edx, %edx
	movl $8 * 512, %ecx
1:	movl %eax, (%edi)
	movl %edx, 4(%edi)
	addl $0x200000, %eax
	adcl $0, %edx
	addl $8, %edi
	loop 1b

	movl $first_cpu, %esi
enter_long_mode:		/* goes on at %esi */
	movl $pml4, %eax
	movl %eax, %cr3
	movl %cr4, %eax
	orl $0x20, %eax		/* PAE */
	movl %eax, %cr4
	movl $0xc0000080, %ecx
	rdmsr
	orl $0x100, %eax	/* LME */
	wrmsr
	movl %cr0, %eax
	orl $0x80000001, %eax
	movl %eax, %cr0
	lgdt gdt_pointer
	ljmp $8, $long_mode

	.code64
long_mode:
	movw $16, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	jmp *%rsi
first_cpu:
	movq $stack_end, %rsp
	movl start_info, %edi
	call guest_main
1:	hlt
	jmp 1b

second_cpu:
	movq $second_stack_end, %rsp
	call *second_cpu_runs
	cli
1:	hlt
	jmp 1b

	.code32
second_start:
	movw $16, %ax
	movw %ax, %ds
	movw %ax, %es
	movw %ax, %ss
	movl $second_cpu, %esi
	jmp enter_long_mode

	/* Real mode, %cs:0 = where the copy is; %ds = 0. */
	.code16
	.globl trampoline, trampoline_end
trampoline:
	cli
	movw %cs, %ax
	movw %ax, %ds
	lgdtl trampoline_gdt - trampoline
	movl %cr0, %eax
	orl $1, %eax
	movl %eax, %cr0
	ljmpl $0x38, $second_start
trampoline_gdt:
	.word gdt_pointer - gdt - 1
	.long gdt
trampoline_end:

	.code64
	/* enter_user(function): goes on in ring 3, every port allowed; does not return. */
	.globl enter_user
enter_user:
	movl $tss, %eax
	movw %ax, tss_descriptor + 2
	shrl $16, %eax
	movb %al, tss_descriptor + 4
	movb %ah, tss_descriptor + 7
	movw $0x28, %ax
	ltr %ax
	pushq $0x23
	pushq $user_stack_end
	pushq $2		/* interrupts off: ring 3 polls */
	pushq $0x1b
	pushq %rdi
	iretq

	/* 256 stubs of 16 bytes: push the vector, go on in common. Exceptions with an error code
	 * end the test anyway, so their frames need no care. */
	.globl stubs
	.p2align 4
stubs:
	.set vector, 0
	.rept 256
	.p2align 4
	pushq $vector
	jmp common
	.set vector, vector + 1
	.endr
common:
	pushq %rax
	pushq %rcx
	pushq %rdx
	pushq %rsi
	pushq %rdi
	pushq %r8
	pushq %r9
	pushq %r10
	pushq %r11
	movq 72(%rsp), %rdi
	leaq 80(%rsp), %rsi
	call interrupt
	popq %r11
	popq %r10
	popq %r9
	popq %r8
	popq %rdi
	popq %rsi
	popq %rdx
	popq %rcx
	popq %rax
	addq $8, %rsp
	iretq

	.data
	.p2align 3
gdt:	.quad 0
	.quad 0x00af9b000000ffff
	.quad 0x00cf93000000ffff
	.quad 0x00affb000000ffff	/* 0x18: ring 3 code */
	.quad 0x00cff3000000ffff	/* 0x20: ring 3 data */
tss_descriptor:
	.quad 0x0000890000002068	/* 0x28: limit covers the port bitmap */
	.quad 0
	.quad 0x00cf9b000000ffff	/* 0x38: 32-bit code, on a second CPU's way up */
gdt_pointer:
	.word gdt_pointer - gdt - 1
	.long gdt
	.long 0
start_info:
	.long 0
	.p2align 3
	.globl second_cpu_runs
second_cpu_runs:
	.quad 0

	.p2align 4
tss:	.long 0
	.quad stack_end
	.skip 90
	.word 104		/* where the port bitmap begins: all zero, all allowed */
	.skip 8192
	.byte 0xff

	.bss
	.p2align 12
pml4:	.skip 4096
pdpt:	.skip 4096
directories:
	.skip 8 * 4096
	.skip 16384
stack_end:
	.skip 16384
user_stack_end:
	.skip 16384
second_stack_end:

	.section .note.GNU-stack, "", @progbits

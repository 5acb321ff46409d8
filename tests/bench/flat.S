/*
 * The bench guest for VMMs that take no ELF but load a flat image at 64 KiB and enter it at 1000:0 in real
 * mode (kvmtool): goes to protected mode, puts the ELF's one segment where it belongs, enters it
 * as PVH has it. What is appended to the image is the command line.
 */
#define AT(label) (0x10000 + label - flat)

	.code16
	.globl flat
flat:	cli
	cld
	movw %cs, %ax
	movw %ax, %ds
	lgdtl table - flat
	movl %cr0, %eax
	orb $1, %al
	movl %eax, %cr0
	ljmpl $8, $AT(high)

	.code32
high:	movl $16, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	movl $AT(image), %esi
	movl $0x200000, %edi
	movl $(image_end - image + 3) / 4, %ecx
	rep movsl
	/* zero-page of PVH: magic, version, flags, no modules, command line */
	movl $AT(info), %ebx
	movl $BENCH_ENTRY, %eax
	jmp *%eax

	.balign 8
table:	.word 23
	.long AT(gdt)
	.balign 8
gdt:	.quad 0
	.quad 0x00cf9b000000ffff
	.quad 0x00cf93000000ffff
info:	.long 0x336ec578, 0, 0, 0
	.quad 0
	.quad AT(image_end)
	.quad 0
	.balign 4
image:	.incbin "build/bench/guest.bin"
	.balign 4
image_end:

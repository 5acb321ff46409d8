/*
 * The guest's CPUID tables. Leaf numbers and bits: Intel SDM volume 2, CPUID; AMD APM volume 3,
 * appendix E; Linux Documentation/virt/kvm/x86/cpuid.rst; the timing leaf 0x40000010 is VMware's,
 * known to several guests. Main thread.
 */
#include <asm/kvm_para.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "vm/cpuid.h"
#include "vm/kvm.h"

#define LEAF_KVM_TIMING 0x40000010u
/* KVM's LAPIC timers count nanoseconds. */
#define APIC_BUS_KHZ 1000000u

#define LEAF1_ECX_MONITOR      BIT(3)
#define LEAF1_ECX_X2APIC       BIT(21)
#define LEAF1_ECX_TSC_DEADLINE BIT(24)
#define LEAF1_ECX_HYPERVISOR   BIT(31)
#define LEAF1_EDX_HTT	       BIT(28)
#define EXT1_ECX_CMP_LEGACY    BIT(1)

enum vendor { VENDOR_OTHER, VENDOR_INTEL, VENDOR_AMD };

struct kvm_cpuid2 *cpuid_alloc(void)
{
	struct kvm_cpuid2 *table;

	return calloc(1, sizeof(*table) + CPUID_MAX_ENTRIES * sizeof(table->entries[0]));
}

int cpuid_supported(const struct kvm *kvm, struct kvm_cpuid2 *table)
{
	table->nent = CPUID_MAX_ENTRIES;
	return ioctl(kvm->fd, KVM_GET_SUPPORTED_CPUID, table) ? -errno : 0;
}

static struct kvm_cpuid_entry2 *find(struct kvm_cpuid2 *table, u32 function)
{
	for (u32 i = 0; i < table->nent; i++) {
		if (table->entries[i].function == function)
			return &table->entries[i];
	}
	return NULL;
}

u8 cpuid_physical_bits(struct kvm_cpuid2 *supported)
{
	const struct kvm_cpuid_entry2 *sizes = find(supported, 0x80000008);
	u32 bits = sizes ? sizes->eax & 0xff : 36;
	/* what the nested page tables can map, where that is less */
	u32 guest_bits = sizes ? sizes->eax >> 16 & 0xff : 0;

	if (guest_bits && guest_bits < bits)
		bits = guest_bits;
	return (u8)(bits < 32 || bits > 52 ? 36 : bits);
}

static enum vendor vendor_of(const struct kvm_cpuid_entry2 *leaf0)
{
	char name[12];

	if (!leaf0)
		return VENDOR_OTHER;
	memcpy(name, &leaf0->ebx, 4);
	memcpy(name + 4, &leaf0->edx, 4);
	memcpy(name + 8, &leaf0->ecx, 4);
	if (!memcmp(name, "GenuineIntel", 12))
		return VENDOR_INTEL;
	if (!memcmp(name, "AuthenticAMD", 12) || !memcmp(name, "HygonGenuine", 12))
		return VENDOR_AMD;
	return VENDOR_OTHER;
}

bool cpuid_is_amd(struct kvm_cpuid2 *supported)
{
	return vendor_of(find(supported, 0)) == VENDOR_AMD;
}

/* How many bits of the APIC id tell n things apart. */
static u32 id_bits(u32 n)
{
	u32 bits = 0;

	while (BIT(bits) < n)
		bits++;
	return bits;
}

static int append(struct kvm_cpuid2 *table, struct kvm_cpuid_entry2 entry)
{
	if (table->nent == CPUID_MAX_ENTRIES)
		return -ENOSPC;
	table->entries[table->nent++] = entry;
	return 0;
}

static void set_field(u32 *reg, unsigned int shift, unsigned int width, u32 value)
{
	u32 mask = (BIT(width) - 1) << shift;
	u32 most = BIT(width) - 1;

	*reg = (*reg & ~mask) | (value < most ? value : most) << shift;
}

/* A cache (leaf 4, and AMD's 0x8000001d of the same form): which ids share it. The last level is
 * the socket's. */
static void set_cache_sharing(struct kvm_cpuid_entry2 *cache, enum vendor vendor,
			      const struct cpuid_vcpu *vcpu)
{
	u32 smt_bits = id_bits(vcpu->threads), core_bits = id_bits(vcpu->cores);
	u32 type = cache->eax & 0x1f, level = cache->eax >> 5 & 7;

	if (!type)
		return;
	set_field(&cache->eax, 14, 12,
		  level < 3 ? BIT(smt_bits) - 1 : BIT(smt_bits + core_bits) - 1);
	if (vendor != VENDOR_AMD)
		set_field(&cache->eax, 26, 6, BIT(core_bits) - 1);
}

static void adapt(struct kvm_cpuid_entry2 *entry, enum vendor vendor, const struct cpuid_vcpu *vcpu)
{
	u32 smt_bits = id_bits(vcpu->threads), core_bits = id_bits(vcpu->cores);
	u32 in_socket = vcpu->cores * vcpu->threads;

	switch (entry->function) {
	case 1:
		set_field(&entry->ebx, 24, 8, vcpu->apic_id);
		set_field(&entry->ebx, 16, 8, BIT(smt_bits + core_bits));
		entry->ecx &= ~LEAF1_ECX_MONITOR;
		/* api.rst: not in KVM's list, the timer being part of its interrupt controller */
		entry->ecx |= LEAF1_ECX_HYPERVISOR | LEAF1_ECX_X2APIC | LEAF1_ECX_TSC_DEADLINE;
		if (in_socket > 1)
			entry->edx |= LEAF1_EDX_HTT;
		else
			entry->edx &= ~LEAF1_EDX_HTT;
		break;
	case 4:
	case 0x8000001d:
		set_cache_sharing(entry, vendor, vcpu);
		break;
	case KVM_CPUID_SIGNATURE:
		if (vcpu->tsc_khz && entry->eax < LEAF_KVM_TIMING)
			entry->eax = LEAF_KVM_TIMING;
		break;
	case 0x80000001:
		if (vendor == VENDOR_AMD && in_socket > 1)
			entry->ecx |= EXT1_ECX_CMP_LEGACY;
		else
			entry->ecx &= ~EXT1_ECX_CMP_LEGACY;
		break;
	case 0x80000008:
		if (vendor != VENDOR_AMD)
			break;
		set_field(&entry->ecx, 0, 8, in_socket - 1);
		set_field(&entry->ecx, 12, 4, smt_bits + core_bits);
		break;
	case 0x8000001e:
		if (vendor != VENDOR_AMD)
			break;
		entry->eax = vcpu->apic_id;
		entry->ebx = (vcpu->apic_id >> smt_bits & (BIT(core_bits) - 1)) |
			     (vcpu->threads - 1) << 8;
		entry->ecx = vcpu->apic_id >> (smt_bits + core_bits) & 0xff;
		break;
	}
}

/* Leaves that are written anew, or belong to something that is hidden. */
static bool is_dropped(u32 function)
{
	switch (function) {
	case 5: /* MONITOR */
	case 0xb:
	case 0x15:
	case 0x1f:
	case LEAF_KVM_TIMING:
	case 0x80000026: /* AMD's extended topology, of the host */
		return true;
	}
	return false;
}

/* Leaf 0xb or 0x1f: the levels of the x2APIC id. */
static int append_topology(struct kvm_cpuid2 *to, u32 function, const struct cpuid_vcpu *vcpu)
{
	u32 smt_bits = id_bits(vcpu->threads), core_bits = id_bits(vcpu->cores);
	struct kvm_cpuid_entry2 levels[] = {
		{ .eax = smt_bits, .ebx = vcpu->threads, .ecx = 1 << 8 },
		{ .eax = smt_bits + core_bits, .ebx = vcpu->threads * vcpu->cores, .ecx = 2 << 8 },
		{ 0 },
	};
	int err = 0;

	for (u32 i = 0; i < ARRAY_SIZE(levels) && !err; i++) {
		levels[i].function = function;
		levels[i].index = i;
		levels[i].flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		levels[i].ecx |= i;
		levels[i].edx = vcpu->apic_id;
		err = append(to, levels[i]);
	}
	return err;
}

static int append_timing(struct kvm_cpuid2 *to, u32 max_leaf, enum vendor vendor,
			 const struct cpuid_vcpu *vcpu)
{
	int err = 0;

	if (!vcpu->tsc_khz || vcpu->tsc_khz > UINT32_MAX)
		return 0;
	if (find(to, KVM_CPUID_SIGNATURE))
		err = append(to, (struct kvm_cpuid_entry2){ .function = LEAF_KVM_TIMING,
							    .eax = (u32)vcpu->tsc_khz,
							    .ebx = APIC_BUS_KHZ });
	/* The crystal clock is what the LAPIC timer counts: 1 GHz. TSC = crystal * ebx / eax. */
	if (!err && vendor == VENDOR_INTEL && max_leaf >= 0x15)
		err = append(to, (struct kvm_cpuid_entry2){ .function = 0x15,
							    .eax = APIC_BUS_KHZ,
							    .ebx = (u32)vcpu->tsc_khz,
							    .ecx = APIC_BUS_KHZ * 1000 });
	return err;
}

int cpuid_build(struct kvm_cpuid2 *to, const struct kvm_cpuid2 *supported,
		const struct cpuid_vcpu *vcpu)
{
	struct kvm_cpuid_entry2 *leaf0;
	enum vendor vendor;
	u32 max_leaf;
	int err;

	to->nent = 0;
	for (u32 i = 0; i < supported->nent; i++) {
		if (is_dropped(supported->entries[i].function))
			continue;
		err = append(to, supported->entries[i]);
		if (err)
			return err;
	}
	leaf0 = find(to, 0);
	vendor = vendor_of(leaf0);
	if (leaf0 && leaf0->eax < 0xb)
		leaf0->eax = 0xb;
	max_leaf = leaf0 ? leaf0->eax : 0;
	for (u32 i = 0; i < to->nent; i++)
		adapt(&to->entries[i], vendor, vcpu);

	err = append_topology(to, 0xb, vcpu);
	/* AMD's kernels look at 0xb and 0x80000026 */
	if (!err && max_leaf >= 0x1f && vendor != VENDOR_AMD)
		err = append_topology(to, 0x1f, vcpu);
	if (!err)
		err = append_timing(to, max_leaf, vendor, vcpu);
	return err;
}

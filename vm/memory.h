/*
 * Guest RAM: one anonymous mapping (a memfd for hugetlb pages), seen by the guest below and above
 * the PCI hole. The only way from a guest-physical address to a host pointer is memory_at(), which
 * takes the length; a range that leaves RAM or straddles the hole does not exist.
 *
 * Guest memory may change under us at any time: read a value once into a local, check it,
 * then use the local.
 */
#ifndef VM_MEMORY_H
#define VM_MEMORY_H

#include "vm/layout.h"

struct kvm;

enum memory_pages { MEMORY_PAGES_DEFAULT, MEMORY_PAGES_2M, MEMORY_PAGES_1G };

struct memory {
	u8 *low;       /* guest-physical 0 */
	u64 low_size;  /* up to LAYOUT_RAM_LOW_END */
	u8 *high;      /* guest-physical LAYOUT_RAM_HIGH */
	u64 high_size; /* 0 if all fits below the hole */
	enum memory_pages pages;
	int fd; /* hugetlb memfd, else -1 */
};

/*
 * Maps size bytes of RAM (a multiple of 4 KiB; of the page size for huge pages) and gives them to
 * the VM. kvm may be NULL (tests). Touches no page. Logs one line and returns -errno (-ENOMEM: more
 * than the host can give; -E2BIG: more than the guest-physical width can address). Main thread.
 */
int memory_create(struct memory *memory, const struct kvm *kvm, u64 size, enum memory_pages pages);

/* Keeps RAM out of core files, which are not the place for the guest's secrets, and would be too
 * large: for a process that may write any, as sandboxed ones may not. Main thread. */
void memory_hide(const struct memory *memory);

/* RAM reads as zero again; its pages go back to the host, except huge pages from a pool. Main
 * thread, vCPUs and reactors quiet. */
void memory_clear(struct memory *memory);

void memory_destroy(struct memory *memory);

/* First guest-physical address above all RAM, at least 4 GiB. Any thread. */
static inline u64 memory_end(const struct memory *m)
{
	return LAYOUT_RAM_HIGH + m->high_size;
}

/* Host pointer to [gpa, gpa + length), or NULL unless all of it is RAM on one side of the
 * hole. A length of 0 is valid at RAM addresses only. Any thread. */
static inline void *memory_at(const struct memory *m, u64 gpa, u64 length)
{
	if (gpa < m->low_size && length <= m->low_size - gpa)
		return m->low + gpa;
	if (gpa >= LAYOUT_RAM_HIGH && gpa - LAYOUT_RAM_HIGH < m->high_size &&
	    length <= m->high_size - (gpa - LAYOUT_RAM_HIGH))
		return m->high + (gpa - LAYOUT_RAM_HIGH);
	return NULL;
}

#endif

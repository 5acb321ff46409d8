/* Long mode's page tables, as what walks a guest's knows them (Intel SDM volume 3, 4.5). */
#ifndef VM_PAGING_H
#define VM_PAGING_H

#include "vm/types.h"

#define CR0_PG	     BIT64(31)
#define CR4_LA57     BIT64(12)
#define EFER_LMA     BIT64(10)
#define ENTRY_THERE  BIT64(0)
#define ENTRY_LARGE  BIT64(7)
#define ADDRESS_BITS 0x000ffffffffff000ull

#endif

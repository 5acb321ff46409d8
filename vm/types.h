/*
 * Integer names and little-endian access, for every room.
 *
 * Everything that PCI, ACPI and virtio 1.x define is little-endian; the legacy virtio
 * interface uses the guest's own order, which on x86 is little-endian too.
 */
#ifndef VM_TYPES_H
#define VM_TYPES_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;

#define KIB(n) ((u64)(n) << 10)
#define MIB(n) ((u64)(n) << 20)
#define GIB(n) ((u64)(n) << 30)

/* Does what --stats tells get counted? Only the bench builds a vmm that does not, to show what it
 * costs. */
#ifdef UNCOUNTED
#define COUNTED false
#else
#define COUNTED true
#endif

/* Adds to a counter that one thread writes and any may read: one instruction, after which they see
 * all of it. */
static inline void counter_add(u64 *counter, u64 by)
{
	if (COUNTED)
		__asm__("addq %1, %0" : "+m"(*counter) : "er"(by));
}

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define BIT(n)	      (1u << (n))
#define BIT64(n)      (1ull << (n))

/* align must be a power of two. */
#define ALIGN_UP(n, align)   (((n) + ((align)-1)) & ~((__typeof__(n))(align)-1))
#define ALIGN_DOWN(n, align) ((n) & ~((__typeof__(n))(align)-1))

#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* Unaligned little-endian loads and stores, each one access for the compiler to fold. */
static inline u16 le16_load(const void *from)
{
	u16 v;

	memcpy(&v, from, sizeof(v));
	return le16toh(v);
}

static inline u32 le32_load(const void *from)
{
	u32 v;

	memcpy(&v, from, sizeof(v));
	return le32toh(v);
}

static inline u64 le64_load(const void *from)
{
	u64 v;

	memcpy(&v, from, sizeof(v));
	return le64toh(v);
}

static inline void le16_store(void *to, u16 v)
{
	v = htole16(v);
	memcpy(to, &v, sizeof(v));
}

static inline void le32_store(void *to, u32 v)
{
	v = htole32(v);
	memcpy(to, &v, sizeof(v));
}

static inline void le64_store(void *to, u64 v)
{
	v = htole64(v);
	memcpy(to, &v, sizeof(v));
}

/* size is 1 to 8 bytes; the rest of the value is zero, or cut off. */
static inline u64 le_load(const void *from, unsigned int size)
{
	u64 v = 0;

	memcpy(&v, from, size);
	return le64toh(v);
}

static inline void le_store(void *to, unsigned int size, u64 v)
{
	v = htole64(v);
	memcpy(to, &v, size);
}

#endif

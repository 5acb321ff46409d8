/*
 * SHA-256 (FIPS 180-4), for the names of cached kernels. Pure, any thread.
 */
#ifndef FIRMWARE_SHA256_H
#define FIRMWARE_SHA256_H

#include "vm/types.h"

#define SHA256_SIZE 32

/* Of size bytes (less than 2^61). */
void sha256(const void *data, u64 size, u8 digest[SHA256_SIZE]);

#endif

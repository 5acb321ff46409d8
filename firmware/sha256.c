/* SHA-256: FIPS 180-4, sections 4.1.2, 4.2.2, 5.1.1 and 6.2. */
#include "firmware/sha256.h"

#define BLOCK 64

/* 4.2.2: the fractions of the cube roots of the first 64 primes. */
static const u32 constants[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4,
	0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe,
	0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f,
	0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7,
	0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc,
	0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b,
	0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116,
	0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7,
	0xc67178f2,
};

static u32 rotate(u32 x, unsigned int n)
{
	return x >> n | x << (32 - n);
}

/* 6.2.2 */
static void add_block(u32 hash[8], const u8 *block)
{
	u32 w[64], v[8];

	for (u32 t = 0; t < 16; t++) {
		u32 word;

		memcpy(&word, block + 4 * t, sizeof(word));
		w[t] = be32toh(word);
	}
	for (u32 t = 16; t < 64; t++) {
		u32 a = w[t - 15], b = w[t - 2];

		w[t] = (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10) + w[t - 7] +
		       (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[t - 16];
	}
	memcpy(v, hash, sizeof(v));
	for (u32 t = 0; t < 64; t++) {
		u32 a = v[0], e = v[4];
		u32 t1 = v[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
			 ((e & v[5]) ^ (~e & v[6])) + constants[t] + w[t];
		u32 t2 = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) +
			 ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));

		memmove(v + 1, v, 7 * sizeof(v[0]));
		v[4] += t1;
		v[0] = t1 + t2;
	}
	for (u32 i = 0; i < 8; i++)
		hash[i] += v[i];
}

void sha256(const void *data, u64 size, u8 digest[SHA256_SIZE])
{
	/* 5.3.3 */
	u32 hash[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
			0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
	u8 last[2 * BLOCK] = { 0 };
	const u8 *next = data;
	u64 left = size, bits = htobe64(size * 8);
	u32 padded;

	for (; left >= BLOCK; left -= BLOCK, next += BLOCK)
		add_block(hash, next);
	/* 5.1.1: a one, zeros, the length in bits */
	if (left)
		memcpy(last, next, left);
	last[left] = 0x80;
	padded = left + 9 <= BLOCK ? BLOCK : 2 * BLOCK;
	memcpy(last + padded - sizeof(bits), &bits, sizeof(bits));
	for (u32 at = 0; at < padded; at += BLOCK)
		add_block(hash, last + at);
	for (u32 i = 0; i < 8; i++) {
		u32 word = htobe32(hash[i]);

		memcpy(digest + 4 * i, &word, sizeof(word));
	}
}

/*
 * Which file system a disk image holds, so that its module is among those in the initramfs. Offsets
 * as the file systems' own headers in Linux have them.
 */
#include <unistd.h>
#include "run/initramfs.h"

static const struct {
	const char *type, *magic;
	u32 offset, size;
} types[] = {
	{ "ext4", "\x53\xef", 0x438, 2 }, /* ext2 and ext3 too, which its driver serves */
	{ "xfs", "XFSB", 0, 4 },
	{ "btrfs", "_BHRfS_M", 0x10040, 8 },
	{ "squashfs", "hsqs", 0, 4 },
	{ "erofs", "\xe2\xe1\xf5\xe0", 0x400, 4 },
	{ "f2fs", "\x10\x20\xf5\xf2", 0x400, 4 },
	{ "iso9660", "CD001", 0x8001, 5 },
};

const char *image_type(int fd)
{
	u8 bytes[8];

	for (u32 i = 0; i < ARRAY_SIZE(types); i++)
		if (pread(fd, bytes, types[i].size, types[i].offset) == (ssize_t)types[i].size &&
		    !memcmp(bytes, types[i].magic, types[i].size))
			return types[i].type;
	return NULL;
}

/*
 * Foreign image formats and compressed files, told by the signatures that their own specifications
 * define. Partition tables, file systems, ISO 9660 and LUKS are what raw disks hold: not looked
 * for. Main thread, once for each disk, before the guest runs: what a guest writes is never probed.
 */
#include <stdio.h>
#include <unistd.h>
#include "backends/disk-format.h"

#define CONVERT "qemu-img convert -O raw -f "

static const struct disk_format qcow = { "a qcow image", CONVERT "qcow", "" };
static const struct disk_format qcow2 = { "a qcow2 image", CONVERT "qcow2", "" };
static const struct disk_format qed = { "a QED image", CONVERT "qed", "" };
static const struct disk_format vmdk = { "a VMDK image", CONVERT "vmdk", "" };
static const struct disk_format vhd = { "a VHD image", CONVERT "vpc", "" };
static const struct disk_format vhdx = { "a VHDX image", CONVERT "vhdx", "" };
static const struct disk_format vdi = { "a VDI image", CONVERT "vdi", "" };
static const struct disk_format parallels = { "a Parallels image", CONVERT "parallels", "" };
static const struct disk_format bochs = { "a Bochs image", CONVERT "bochs", "" };
static const struct disk_format dmg = { "a DMG image", CONVERT "dmg", "" };
static const struct disk_format sparse = { "an Android sparse image", "simg2img", "" };
static const struct disk_format gzip = { "gzip-compressed", "gzip -dc", ">" };
static const struct disk_format xz = { "xz-compressed", "xz -dc", ">" };
static const struct disk_format zstd = { "zstd-compressed", "zstd -dc", ">" };
static const struct disk_format bzip2 = { "bzip2-compressed", "bzip2 -dc", ">" };
static const struct disk_format lz4 = { "lz4-compressed", "lz4 -dc", ">" };
static const struct disk_format lzip = { "lzip-compressed", "lzip -dc", ">" };
static const struct disk_format zip = { "a zip archive", "unzip -p", ">" };
static const struct disk_format seven_zip = { "a 7z archive", "7z e -so", ">" };

#define HEAD_SIZE 512

struct signature {
	const struct disk_format *format;
	s32 offset; /* negative: from the end of the file */
	u32 length;
	const char *bytes;
};

#define SIGNATURE(format, offset, bytes)                    \
	{                                                   \
		&(format), offset, sizeof(bytes) - 1, bytes \
	}

static const struct signature signatures[] = {
	SIGNATURE(qcow, 0, "QFI\xfb\0\0\0\1"),
	SIGNATURE(qcow2, 0, "QFI\xfb"),
	SIGNATURE(qed, 0, "QED\0"),
	SIGNATURE(vmdk, 0, "KDMV"),
	SIGNATURE(vmdk, 0, "COWD"),
	SIGNATURE(vmdk, 0, "# Disk DescriptorFile"),
	SIGNATURE(vhd, 0, "conectix"),	  /* dynamic and differencing: the footer's copy */
	SIGNATURE(vhd, -512, "conectix"), /* fixed: the footer alone */
	SIGNATURE(vhd, -511, "conectix"), /* fixed, as made before Virtual PC 2004 */
	SIGNATURE(vhdx, 0, "vhdxfile"),
	SIGNATURE(vdi, 64, "\x7f\x10\xda\xbe"),
	SIGNATURE(parallels, 0, "WithoutFreeSpace"),
	SIGNATURE(parallels, 0, "WithouFreSpacExt"),
	SIGNATURE(bochs, 0, "Bochs Virtual HD Image"),
	SIGNATURE(dmg, -512, "koly\0\0\0\4"),
	SIGNATURE(sparse, 0, "\x3a\xff\x26\xed\1\0"),
	SIGNATURE(gzip, 0, "\x1f\x8b\x08"),
	SIGNATURE(xz, 0,
		  "\xfd"
		  "7zXZ\0"),
	SIGNATURE(zstd, 0, "\x28\xb5\x2f\xfd"),
	SIGNATURE(bzip2, 4, "1AY&SY"), /* after BZh and a level */
	SIGNATURE(lz4, 0, "\x04\x22\x4d\x18"),
	SIGNATURE(lzip, 0, "LZIP\1"),
	SIGNATURE(zip, 0, "PK\3\4"),
	SIGNATURE(seven_zip, 0, "7z\xbc\xaf\x27\x1c"),
};

/* Reads [offset, offset + HEAD_SIZE), what the file lacks being zero. */
static void read_at(int fd, u64 offset, u8 *to)
{
	ssize_t n = pread(fd, to, HEAD_SIZE, (off_t)offset);

	memset(to + (n > 0 ? n : 0), 0, (size_t)(HEAD_SIZE - (n > 0 ? n : 0)));
}

const struct disk_format *disk_format_probe(int fd, u64 size)
{
	u8 head[HEAD_SIZE], tail[HEAD_SIZE] = { 0 };
	const struct signature *s;
	const u8 *at;

	read_at(fd, 0, head);
	if (size >= HEAD_SIZE)
		read_at(fd, size - HEAD_SIZE, tail);
	for (s = signatures; s < signatures + ARRAY_SIZE(signatures); s++) {
		at = s->offset < 0 ? tail + (HEAD_SIZE + s->offset) : head + s->offset;
		if (memcmp(at, s->bytes, s->length) == 0)
			return s->format;
	}
	return NULL;
}

/* Adds text to line, in single quotes if a shell would see more than a word in it. Returns the new
 * length. */
static size_t append_word(char *line, size_t length, size_t size, const char *text)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789_-+=.,:/@%";
	bool quote = strspn(text, plain) != strlen(text);

	if (quote && length + 1 < size)
		line[length++] = '\'';
	for (; *text && length + 6 < size; text++) {
		if (quote && *text == '\'') {
			memcpy(line + length, "'\\''", 4);
			length += 4;
		} else {
			line[length++] = *text;
		}
	}
	if (quote && length + 1 < size)
		line[length++] = '\'';
	line[length] = '\0';
	return length;
}

/* What the raw image might be called: the name without the container's suffix; disk.img.gz holds
 * disk.img. */
static void raw_name(const struct disk_format *format, const char *path, char *name, size_t size)
{
	static const char *const suffixes[] = { ".qcow2", ".qcow", ".qed", ".vmdk", ".vhd",
						".vhdx",  ".vdi",  ".hdd", ".hds",  ".dmg",
						".gz",	  ".xz",   ".zst", ".bz2",  ".lz4",
						".lz",	  ".zip",  ".7z",  ".simg", ".bochs" };
	size_t length = strlen(path), cut = length, i, n;

	for (i = 0; i < ARRAY_SIZE(suffixes); i++) {
		n = strlen(suffixes[i]);
		if (length > n && strcmp(path + length - n, suffixes[i]) == 0)
			cut = length - n;
	}
	snprintf(name, size, "%.*s%s", (int)cut, path,
		 cut < length && *format->joint ? "" : ".raw");
}

void disk_format_advice(const struct disk_format *format, const char *path, char *line, size_t size)
{
	char raw[4096 + 8];
	int n = snprintf(line, size, "%s ", format->command);
	size_t length = n > 0 && (size_t)n < size ? (size_t)n : 0;

	raw_name(format, path, raw, sizeof(raw));
	length = append_word(line, length, size, path);
	if (length + 2 + strlen(format->joint) < size) {
		line[length++] = ' ';
		length += (size_t)snprintf(line + length, size - length, "%s", format->joint);
	}
	append_word(line, length, size, raw);
}

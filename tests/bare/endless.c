/* Bare guest: guests that never end by themselves, for what happens around a running VM. */
#include <linux/virtio_blk.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include "bare.h"

void spin(void)
{
	say("spinning\n");
	for (;;)
		__asm__ volatile("cli; pause");
}

/* Code where nothing is: KVM gives up. */
void run_nowhere(void)
{
	((void (*)(void))0xd0000000ull)();
}

void idle(void)
{
	say("idle\n");
	for (;;)
		__asm__ volatile("sti; hlt");
}

void print(void)
{
	for (u64 line = 0;; line++)
		say("line %u of a guest that has much to say\n", line);
}

void write_on(void)
{
	struct function f;
	struct driver d = { 0 };
	u8 *data = allocate(65536, 4096), last = 0xee, now;
	u64 sectors, at = 0;

	if (!find_function(&f, VIRTIO_ID_BLOCK, 0) ||
	    !start_modern(&d, &f, 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_BLK_F_FLUSH, 1))
		machine_end(1);
	for (u32 i = 0; i < 65536; i++)
		data[i] = (u8)(i * 7 + 1);
	sectors = read64(f.bar[f.config.bar] + f.config.offset);
	for (;; at = at + 256 <= sectors ? at + 128 : 0) {
		now = block(&d, VIRTIO_BLK_T_OUT, at, data, 65536, DOORBELL_IO);
		if (now != last)
			say("writes: status %u from sector %u on\n", (u64)now, at);
		last = now;
	}
}

/* Bare guest: what it is to do, by the words of its command line; without one, every test. */
#include <linux/virtio_config.h>
#include "bare.h"

/* What follows this word on the command line; NULL if it is not there. */
static const char *asked(u32 start_info, const char *word)
{
	const char *line = start_info ? (const char *)read64(start_info + 24) : NULL;

	for (; line && *line; line++) {
		u32 i = 0;

		while (word[i] && line[i] == word[i])
			i++;
		if (!word[i])
			return line + i;
	}
	return NULL;
}

static u64 asked_number(u32 start_info, const char *word)
{
	const char *at = asked(start_info, word);
	u64 n = 0;

	while (at && *at >= '0' && *at <= '9')
		n = n * 10 + (u64)(*at++ - '0');
	return n;
}

void guest_main(u32 start_info);

void guest_main(u32 start_info)
{
	machine_init();
	if (asked(start_info, "verify")) {
		if (asked(start_info, "packed"))
			verify_features |= 1ull << VIRTIO_F_RING_PACKED;
		if (asked(start_info, "in-order"))
			verify_features |= 1ull << VIRTIO_F_IN_ORDER;
		if (asked(start_info, "notify-data"))
			verify_features |= 1ull << VIRTIO_F_NOTIFICATION_DATA;
		enter_user(verify);
	}
	if (asked(start_info, "rounds="))
		steady(&(struct steady_work){
			asked_number(start_info, "rounds="),
			(u32)asked_number(start_info, "depth="), asked(start_info, "writes"),
			asked(start_info, "silent"), asked(start_info, "echo") });
	if (asked(start_info, "nowhere"))
		run_nowhere();
	if (asked(start_info, "spin"))
		spin();
	if (asked(start_info, "slots"))
		slots();
	if (asked(start_info, "idle"))
		idle();
	if (asked(start_info, "print"))
		print();
	if (asked(start_info, "write-on"))
		write_on();
	if (asked(start_info, "layouts"))
		test_layouts();
	if (asked(start_info, "strict"))
		break_rules(asked(start_info, "strict=fail"), asked(start_info, "strict=behave"));
	if (asked(start_info, "hostile"))
		hostile(asked_number(start_info, "seed="), asked_number(start_info, "steps="),
			asked(start_info, "two"));
	test_all(asked(start_info, "packed"));
}

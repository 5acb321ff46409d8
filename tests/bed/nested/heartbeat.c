/*
 * heartbeat: an interrupt of the HPET 16 times a second, for as long as this runs.
 *
 * QEMU's emulated CPU clears a bit of its pending interrupts (at a #VMEXIT) without the lock under
 * which its timers set another, so now and then an interrupt that the local APIC holds is never
 * looked at. On an idle CPU whose next timer it was, nothing ever happens again. The next interrupt
 * of whatever device makes the APIC tell of both.
 */
#include <fcntl.h>
#include <linux/hpet.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

int main(void)
{
	int fd = open("/dev/hpet", O_RDONLY);

	if (fd < 0 || ioctl(fd, HPET_IRQFREQ, 16) < 0 || ioctl(fd, HPET_EPI, 0) < 0 ||
	    ioctl(fd, HPET_IE_ON, 0) < 0) {
		perror("heartbeat: /dev/hpet");
		return 1;
	}
	for (;;)
		pause();
}

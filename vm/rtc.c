/*
 * MC146818-compatible real-time clock (Motorola MC146818A data sheet): the host's UTC plus an
 * offset that the guest makes by setting the time; battery-backed, so a reset leaves it alone.
 * Without an interrupt: alarms are kept but never ring. vCPU threads.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#include "vm/bus.h"
#include "vm/date.h"
#include "vm/layout.h"
#include "vm/platform.h"

/* Registers 0 to 13, in data sheet order; 14 and up are plain CMOS bytes, but for the century. */
enum {
	SECONDS,
	SECONDS_ALARM,
	MINUTES,
	MINUTES_ALARM,
	HOURS,
	HOURS_ALARM,
	DAY_OF_WEEK,
	DAY_OF_MONTH,
	MONTH,
	YEAR,
	REG_A,
	REG_B,
	REG_C,
	REG_D,
	CENTURY = 0x32, /* FADT's CENTURY */
	CMOS_SIZE = 128,
};

#define NMI_DISABLE 0x80 /* bit 7 of the index port, not part of the index */

#define REG_A_UIP     0x80
#define REG_A_DIVIDER 0x70
#define REG_A_32KHZ   0x20 /* the divider of a clock that runs */
#define REG_A_RATE    0x06 /* 1024 Hz, what firmware leaves */
#define REG_B_SET     0x80
#define REG_B_BINARY  0x04
#define REG_B_24H     0x02
#define REG_D_VALID   0x80 /* the battery is good */
#define HOURS_PM      0x80

/* The update-in-progress bit rises this long before the second turns. */
#define UIP_NS 244000

struct rtc {
	struct bus *bus;
	struct bus_region region;
	pthread_mutex_t lock; /* what follows */
	s64 offset;	      /* seconds that the guest's clock is ahead of the host's */
	u8 index;
	u8 cmos[CMOS_SIZE]; /* the time registers: valid while the clock stands still (REG_B_SET) */
};

static bool is_time(u8 index)
{
	switch (index) {
	case SECONDS:
	case MINUTES:
	case HOURS:
	case DAY_OF_WEEK:
	case DAY_OF_MONTH:
	case MONTH:
	case YEAR:
	case CENTURY:
		return true;
	default:
		return false;
	}
}

/* The guest may stop the clock to set it: by SET, or by holding the divider in reset. */
static bool is_running(const struct rtc *rtc)
{
	return !(rtc->cmos[REG_B] & REG_B_SET) && (rtc->cmos[REG_A] & REG_A_DIVIDER) == REG_A_32KHZ;
}

static u8 encode(const struct rtc *rtc, int n)
{
	return (u8)(rtc->cmos[REG_B] & REG_B_BINARY ? n : n / 10 << 4 | n % 10);
}

static int decode(const struct rtc *rtc, u8 n)
{
	return rtc->cmos[REG_B] & REG_B_BINARY ? n : (n >> 4) * 10 + (n & 15);
}

static u8 encode_hours(const struct rtc *rtc, int hour)
{
	if (rtc->cmos[REG_B] & REG_B_24H)
		return encode(rtc, hour);
	return encode(rtc, hour % 12 ? hour % 12 : 12) | (hour >= 12 ? HOURS_PM : 0);
}

static int decode_hours(const struct rtc *rtc, u8 hours)
{
	if (rtc->cmos[REG_B] & REG_B_24H)
		return decode(rtc, hours);
	return decode(rtc, hours & ~HOURS_PM) % 12 + (hours & HOURS_PM ? 12 : 0);
}

/* Not time(2): its coarse clock turns the second up to a tick after the fine one that UIP goes by.
 */
static time_t host_seconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return now.tv_sec;
}

/* Brings the time registers up to date. */
static void latch_time(struct rtc *rtc)
{
	struct tm tm;
	int year;

	date_split(host_seconds() + rtc->offset, &tm);
	if (tm.tm_year < -1900 || tm.tm_year >= 10000 - 1900) {
		rtc->offset = 0; /* no such date has registers */
		date_split(host_seconds(), &tm);
	}
	year = tm.tm_year + 1900;
	rtc->cmos[SECONDS] = encode(rtc, tm.tm_sec);
	rtc->cmos[MINUTES] = encode(rtc, tm.tm_min);
	rtc->cmos[HOURS] = encode_hours(rtc, tm.tm_hour);
	rtc->cmos[DAY_OF_WEEK] = encode(rtc, tm.tm_wday + 1);
	rtc->cmos[DAY_OF_MONTH] = encode(rtc, tm.tm_mday);
	rtc->cmos[MONTH] = encode(rtc, tm.tm_mon + 1);
	rtc->cmos[YEAR] = encode(rtc, year % 100);
	rtc->cmos[CENTURY] = encode(rtc, year / 100);
}

/* Takes the time registers as the time; what makes no date (the 31st of June) goes over into the
 * next month. */
static void set_time(struct rtc *rtc)
{
	struct tm tm = {
		.tm_sec = decode(rtc, rtc->cmos[SECONDS]),
		.tm_min = decode(rtc, rtc->cmos[MINUTES]),
		.tm_hour = decode_hours(rtc, rtc->cmos[HOURS]),
		.tm_mday = decode(rtc, rtc->cmos[DAY_OF_MONTH]),
		.tm_mon = decode(rtc, rtc->cmos[MONTH]) - 1,
		.tm_year =
			decode(rtc, rtc->cmos[CENTURY]) * 100 + decode(rtc, rtc->cmos[YEAR]) - 1900,
	};

	rtc->offset = date_join(&tm) - host_seconds();
}

static u8 read_reg_a(const struct rtc *rtc)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	if (is_running(rtc) && now.tv_nsec >= 1000000000 - UIP_NS)
		return rtc->cmos[REG_A] | REG_A_UIP;
	return rtc->cmos[REG_A];
}

static u8 read_data(struct rtc *rtc)
{
	switch (rtc->index) {
	case REG_A:
		return read_reg_a(rtc);
	case REG_C:
		return 0; /* no interrupt is ever pending */
	case REG_D:
		return REG_D_VALID;
	}
	if (is_time(rtc->index) && is_running(rtc))
		latch_time(rtc);
	return rtc->cmos[rtc->index];
}

/* A control register that may stop or start the clock. */
static void write_control(struct rtc *rtc, u8 value)
{
	bool ran = is_running(rtc);

	if (ran)
		latch_time(rtc);
	if (rtc->index == REG_A)
		rtc->cmos[REG_A] = value & (u8)~REG_A_UIP;
	else
		rtc->cmos[REG_B] = value;
	if (!ran && is_running(rtc))
		set_time(rtc);
}

static void write_data(struct rtc *rtc, u8 value)
{
	switch (rtc->index) {
	case REG_A:
	case REG_B:
		write_control(rtc, value);
		return;
	case REG_C:
	case REG_D:
		return; /* read-only */
	}
	if (!is_time(rtc->index) || !is_running(rtc)) {
		rtc->cmos[rtc->index] = value;
		return;
	}
	latch_time(rtc);
	rtc->cmos[rtc->index] = value;
	set_time(rtc);
}

static u64 rtc_read(void *owner, u64 offset, unsigned int size)
{
	struct rtc *rtc = owner;
	u64 value = 0;

	pthread_mutex_lock(&rtc->lock);
	for (unsigned int i = 0; i < size; i++)
		value |= (u64)(offset + i ? read_data(rtc) : rtc->index) << (8 * i);
	pthread_mutex_unlock(&rtc->lock);
	return value;
}

static void rtc_write(void *owner, u64 offset, unsigned int size, u64 value)
{
	struct rtc *rtc = owner;

	pthread_mutex_lock(&rtc->lock);
	for (unsigned int i = 0; i < size; i++, value >>= 8) {
		if (offset + i)
			write_data(rtc, (u8)value);
		else
			rtc->index = (u8)value & (u8)~NMI_DISABLE;
	}
	pthread_mutex_unlock(&rtc->lock);
}

static const struct bus_ops rtc_ops = { .read = rtc_read, .write = rtc_write };

int rtc_create(struct rtc **result, struct bus *bus)
{
	struct rtc *rtc = calloc(1, sizeof(*rtc));
	int err;

	if (!rtc)
		return -ENOMEM;
	rtc->bus = bus;
	rtc->region = (struct bus_region){ BUS_PIO, LAYOUT_PORT_RTC, 2, &rtc_ops, rtc };
	rtc->cmos[REG_A] = REG_A_32KHZ | REG_A_RATE;
	rtc->cmos[REG_B] = REG_B_24H;
	pthread_mutex_init(&rtc->lock, NULL);
	err = bus_map(bus, &rtc->region);
	if (err) {
		pthread_mutex_destroy(&rtc->lock);
		free(rtc);
		return err;
	}
	*result = rtc;
	return 0;
}

void rtc_destroy(struct rtc *rtc)
{
	if (!rtc)
		return;
	bus_unmap(rtc->bus, &rtc->region);
	pthread_mutex_destroy(&rtc->lock);
	free(rtc);
}

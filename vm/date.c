/* Dates: see date.h. Years begin in March here, so that a leap day is a year's last. */
#include "vm/date.h"

#define DAY	     86400
#define DAYS_400     146097 /* in 400 years, after which the calendar repeats */
#define DAYS_100     36524  /* in a century without the fourth's leap day */
#define DAYS_4	     1461
#define DAYS_TO_1970 719468 /* from the 1st of March of year 0 */
#define MONTHS_5     153    /* days in March to July, August to December, and what January begins */
#define MONTH_MARCH  2	    /* as struct tm counts */

static s64 floor_divide(s64 a, s64 b)
{
	return a / b - (a % b < 0);
}

void date_split(s64 seconds, struct tm *tm)
{
	s64 days = floor_divide(seconds, DAY) + DAYS_TO_1970;
	s64 era = floor_divide(days, DAYS_400);
	int rest = (int)(seconds - floor_divide(seconds, DAY) * DAY);
	int day = (int)(days - era * DAYS_400), year, month;

	/* what leap days add is taken off first, so that each year has 365 */
	year = (day - day / (DAYS_4 - 1) + day / DAYS_100 - day / (DAYS_400 - 1)) / 365;
	day -= 365 * year + year / 4 - year / 100;
	month = (5 * day + 2) / MONTHS_5;
	*tm = (struct tm){
		.tm_sec = rest % 60,
		.tm_min = rest / 60 % 60,
		.tm_hour = rest / 3600,
		.tm_mday = day - (MONTHS_5 * month + 2) / 5 + 1,
		.tm_mon = (month + MONTH_MARCH) % 12,
		.tm_year = (int)(era * 400 + year + (month + MONTH_MARCH) / 12 - 1900),
		.tm_wday = (int)(days - floor_divide(days, 7) * 7 + 3) % 7, /* a Wednesday */
	};
}

s64 date_join(const struct tm *tm)
{
	s64 months = ((s64)tm->tm_year + 1900) * 12 + tm->tm_mon - MONTH_MARCH;
	s64 year = floor_divide(months, 12), era = floor_divide(year, 400);
	s64 month = months - year * 12, days;

	year -= era * 400;
	days = era * DAYS_400 + year * 365 + year / 4 - year / 100 + (MONTHS_5 * month + 2) / 5 +
	       tm->tm_mday - 1 - DAYS_TO_1970;
	return days * DAY + tm->tm_hour * 3600ll + tm->tm_min * 60ll + tm->tm_sec;
}

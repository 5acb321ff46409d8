/*
 * Dates of the Gregorian calendar, in UTC, as time.h's struct tm: what gmtime_r(3) and timegm(3)
 * do, without the time zone's file that these look for. Any thread.
 */
#ifndef VM_DATE_H
#define VM_DATE_H

#include <time.h>
#include "vm/types.h"

/* The date that is `seconds` after 1970-01-01 00:00, within 2^31 years of year 0. */
void date_split(s64 seconds, struct tm *tm);
/* The seconds from then to that date; fields may lie outside their ranges (the 31st of June is the
 * 1st of July). tm_wday, tm_yday and tm_isdst are not looked at. */
s64 date_join(const struct tm *tm);

#endif

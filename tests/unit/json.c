/*
 * JSON text: the writer's output letter by letter, what is escaped, growth, nesting that is too
 * deep; milestones in it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include "vm/json.h"
#include "vm/milestones.h"

/* What it says, with no line ends and no indentation. */
static const char *text_of(struct json *json)
{
	static char text[4096];
	size_t length = 0;

	assert_int_equal(json_done(json), 0);
	assert_true(json->length < sizeof(text));
	assert_int_equal(json->text[json->length - 1], '\n');
	for (size_t i = 0; i < json->length; i++) {
		if (json->text[i] == '\n')
			while (i + 1 < json->length && json->text[i + 1] == ' ')
				i++;
		else
			text[length++] = json->text[i];
	}
	text[length] = '\0';
	json_free(json);
	return text;
}

static void test_shapes(void **state)
{
	struct json json = { 0 };

	(void)state;
	json_begin_object(&json, NULL);
	json_number(&json, "zero", 0);
	json_number(&json, "most", UINT64_MAX);
	json_text(&json, "nothing", NULL);
	json_hex(&json, "bits", 0x8000000000000001ull);
	json_begin_array(&json, "list");
	json_begin_object(&json, NULL);
	json_end(&json);
	json_begin_object(&json, NULL);
	json_begin_array(&json, "inner");
	json_number(&json, NULL, 1);
	json_number(&json, NULL, 2);
	json_end(&json);
	json_end(&json);
	json_end(&json);
	json_begin_array(&json, "one");
	json_number(&json, NULL, 9);
	json_end(&json);
	json_begin_array(&json, "empty");
	json_end(&json);
	json_number(&json, "after", 3);
	json_end(&json);
	assert_string_equal(text_of(&json),
			    "{\"zero\": 0, \"most\": 18446744073709551615, \"nothing\": null, "
			    "\"bits\": \"0x8000000000000001\",\"list\": [{},{\"inner\": [1, 2]}],"
			    "\"one\": [9],"
			    "\"empty\": [], \"after\": 3}");
}

static void test_thousandths(void **state)
{
	static const struct {
		u64 value;
		const char *text;
	} all[] = { { 0, "0.000" },
		    { 7, "0.007" },
		    { 1000, "1.000" },
		    { 1234567, "1234.567" },
		    { UINT64_MAX, "18446744073709551.615" } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		struct json json = { 0 };

		json_thousandths(&json, NULL, all[i].value);
		assert_string_equal(text_of(&json), all[i].text);
	}
}

static void test_escapes(void **state)
{
	struct json json = { 0 };

	(void)state;
	json_text(&json, NULL, "a\"b\\c\n\x01\x7f\xc3\xa9~ ");
	assert_string_equal(text_of(&json), "\"a\\\"b\\\\c\\u000a\\u0001\\u007f\\u00c3\\u00a9~ \"");
}

/* Thousands of values: the buffer grows many times and loses nothing. */
static void test_growth(void **state)
{
	struct json json = { 0 };
	const char *at;

	(void)state;
	json_begin_array(&json, NULL);
	for (u64 i = 0; i < 20000; i++)
		json_number(&json, NULL, i);
	json_end(&json);
	assert_int_equal(json_done(&json), 0);
	at = json.text;
	assert_int_equal(*at++, '[');
	for (u64 i = 0; i < 20000; i++) {
		char *end;

		assert_int_equal(strtoull(at, &end, 10), i);
		at = end + (i < 19999 ? 2 : 0);
	}
	assert_int_equal(*at, ']');
	assert_ptr_equal(at + 2, json.text + json.length);
	json_free(&json);
	assert_null(json.text);
}

static void test_too_deep(void **state)
{
	struct json json = { 0 };

	(void)state;
	for (int i = 0; i < 2 * JSON_DEPTH; i++)
		json_begin_array(&json, NULL);
	for (int i = 0; i < 2 * JSON_DEPTH; i++)
		json_end(&json);
	assert_true(json_done(&json) < 0);
	json_free(&json);
}

static void test_milestones(void **state)
{
	struct milestones milestones;
	struct json json = { 0 };
	char name[64];

	(void)state;
	milestones_begin(&milestones);
	assert_true(milestones.start);
	milestones_add(&milestones, "second", milestones.start + 2500000);
	milestones_add(&milestones, "never", 0);
	milestones_add(&milestones, "first", milestones.start + 1000);
	milestones_add(&milestones, "before the start", milestones.start - 5);
	json_begin_object(&json, NULL);
	milestones_put(&milestones, &json);
	json_end(&json);
	assert_string_equal(text_of(&json),
			    "{\"second\": 2.500, \"first\": 0.001, \"before the start\": 0.000}");
	for (int i = 0; i < 2 * MILESTONES_MAX; i++) {
		snprintf(name, sizeof(name), "%050d", i);
		milestones_mark(&milestones, name);
	}
	assert_int_equal(milestones.count, MILESTONES_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_shapes),	 cmocka_unit_test(test_thousandths),
		cmocka_unit_test(test_escapes),	 cmocka_unit_test(test_growth),
		cmocka_unit_test(test_too_deep), cmocka_unit_test(test_milestones),
	};

	return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}

/* SPDX-License-Identifier: Apache-2.0 */
/* Aligned tables from arrays of JSON objects. */
#include "dmmctl.h"

#define MAX_COLUMNS 16

void format_age(uint64_t ms, char *buf, size_t size)
{
	static const struct {
		char letter;
		uint64_t seconds;
	} units[] = { { 'd', 86400 }, { 'h', 3600 }, { 'm', 60 }, { 's', 1 } };
	uint64_t seconds = ms / 1000;

	if (seconds < 10) {
		snprintf(buf, size, "%.1fs", ms / 1000.0);
		return;
	}
	for (unsigned int i = 0; i < 3; i++) {
		if (seconds >= units[i].seconds) {
			uint64_t rest = seconds % units[i].seconds;

			snprintf(buf, size, "%llu%c%llu%c",
				 (unsigned long long)(seconds / units[i].seconds), units[i].letter,
				 (unsigned long long)(rest / units[i + 1].seconds),
				 units[i + 1].letter);
			return;
		}
	}
	snprintf(buf, size, "%llus", (unsigned long long)seconds);
}

static void format_bytes(uint64_t bytes, char *buf, size_t size)
{
	static const char letters[] = "kMGTPE";
	double value = bytes;
	int unit = -1;

	while (value >= 1000 && unit < 5) {
		value /= 1000;
		unit++;
	}
	if (unit < 0)
		snprintf(buf, size, "%llu", (unsigned long long)bytes);
	else
		snprintf(buf, size, "%.*f%c", value < 10 ? 1 : 0, value, letters[unit]);
}

static void format_cell(struct json_object *item, const struct column *column, char *buf,
			size_t size)
{
	struct json_object *value = get_member(item, column->key);

	if (!value || (json_object_is_type(value, json_type_string) &&
		       json_object_get_string_len(value) == 0))
		snprintf(buf, size, "-");
	else if (column->cell == CELL_BYTES)
		format_bytes(json_object_get_uint64(value), buf, size);
	else if (column->cell == CELL_AGE)
		format_age(json_object_get_uint64(value), buf, size);
	else
		snprintf(buf, size, "%s", json_object_get_string(value));
}

void print_table(struct json_object *items, const struct column *columns, unsigned int n)
{
	size_t rows = json_object_array_length(items);
	bool number[MAX_COLUMNS] = { false };
	int width[MAX_COLUMNS];
	char buf[512];

	for (unsigned int c = 0; c < n; c++) {
		width[c] = strlen(columns[c].title);
		for (size_t i = 0; i < rows; i++) {
			struct json_object *item = json_object_array_get_idx(items, i);
			struct json_object *value = get_member(item, columns[c].key);

			format_cell(item, &columns[c], buf, sizeof(buf));
			width[c] = DMM_MAX(width[c], (int)strlen(buf));
			number[c] |= json_object_is_type(value, json_type_int);
		}
	}
	for (size_t i = 0; i <= rows; i++) { /* row 0: the titles */
		for (unsigned int c = 0; c < n; c++) {
			if (i == 0)
				snprintf(buf, sizeof(buf), "%s", columns[c].title);
			else
				format_cell(json_object_array_get_idx(items, i - 1), &columns[c],
					    buf, sizeof(buf));
			if (number[c])
				printf("%*s", width[c], buf);
			else if (c + 1 < n)
				printf("%-*s", width[c], buf);
			else
				printf("%s", buf);
			fputs(c + 1 < n ? "  " : "\n", stdout);
		}
	}
}

int print_list(const struct ctl *ctl, const char *kind, struct json_object *items,
	       const struct column *columns, unsigned int n)
{
	if (is_json(ctl)) {
		print_document(ctl, list_document(kind, items));
		return CTL_OK;
	}
	print_table(items, columns, n);
	json_object_put(items);
	return CTL_OK;
}

// The next build of notes1: a note has a length and a weight now, and the list is an array.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct note {
	double weight;
	size_t length;
	char *text;
};

static struct note *notes;
static int count;

static void append(const char *text) {
	notes = realloc(notes, (count + 1) * sizeof *notes);
	notes[count].weight = 1.5;
	notes[count].length = strlen(text);
	notes[count].text = strdup(text);
	count++;
}

__attribute__((export_name("handle"))) int handle(void) {
	char line[64];
	clearerr(stdin);
	if (!fgets(line, sizeof line, stdin))
		return 1;
	line[strcspn(line, "\n")] = 0;
	append(line);
	printf("%d: %s (%.1f)\n", count, notes[count - 1].text, notes[count - 1].weight);
	fflush(stdout);
	return 0;
}

__attribute__((export_name("count"))) int count_of(void) { return count; }

__attribute__((export_name("length"))) int length(int i) { return (int)notes[i].length; }

__attribute__((export_name("mmrun_load"))) void load(void) {
	char line[64];
	while (fgets(line, sizeof line, stdin)) {
		line[strcspn(line, "\n")] = 0;
		append(line);
	}
}

// A list of notes, and how it is handed over to the next build: as text.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct note {
	char text[32];
	struct note *next;
};

static struct note *first, *last;
static int count;

static void append(const char *text) {
	struct note *n = calloc(1, sizeof *n);
	strncpy(n->text, text, sizeof n->text - 1);
	if (last)
		last->next = n;
	else
		first = n;
	last = n;
	count++;
}

__attribute__((export_name("handle"))) int handle(void) {
	char line[64];
	clearerr(stdin);
	if (!fgets(line, sizeof line, stdin))
		return 1;
	line[strcspn(line, "\n")] = 0;
	append(line);
	printf("%d: %s\n", count, last->text);
	fflush(stdout);
	return 0;
}

__attribute__((export_name("count"))) int count_of(void) { return count; }

__attribute__((export_name("mmrun_save"))) void save(void) {
	for (struct note *n = first; n; n = n->next)
		puts(n->text);
	fflush(stdout);
}

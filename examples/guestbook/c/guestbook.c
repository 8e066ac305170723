// A guestbook that forgets nobody: its data are plain variables, and nothing is saved or loaded.
//
// An event is a name on standard input; the effect is a greeting on standard output.

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct guest {
	char name[64];
	int visits;
	struct guest *next;
};

static struct guest *guests;
static int count;

__attribute__((export_name("handle"))) int handle(void) {
	char name[64];
	clearerr(stdin); // the end of the event before
	if (!fgets(name, sizeof name, stdin)) {
		fprintf(stderr, "an event without a name\n");
		return 1; // refused: nothing has happened
	}
	name[strcspn(name, "\r\n")] = 0;
	struct guest *g = guests;
	while (g && strcmp(g->name, name) != 0)
		g = g->next;
	if (!g) {
		g = calloc(1, sizeof *g);
		if (!g)
			return 2;
		strcpy(g->name, name);
		g->next = guests;
		guests = g;
		count++;
	}
	g->visits++;
	printf("Hello %s, visit %d, guests %d\n", g->name, g->visits, count);
	fflush(stdout); // what is left in the buffer would come with the next event
	return 0;
}

// A program with a main loop of its own that waits in the middle of everything: recursion, switches,
// calls by pointer, sorting, values of all kinds on the stack.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// wait_for gives a small number that depends on its argument alone; the host may leave the program in it.
__attribute__((import_module("mmrun"), import_name("wait"))) int wait_for(int);

typedef int (*job)(int, int64_t, double);

static int tree(int n, int64_t a, double d) {
	if (n <= 0)
		return wait_for(3) + (int)a;
	double e = d * 1.25 + wait_for(n);
	int64_t b = a * 31 + n;
	int r = tree(n - 1, b, e) ^ tree(n - 2, a + wait_for(1), d + e);
	return r + (int)(e * 3) + wait_for((int)b & 0xff);
}

static int paths(int n, int64_t a, double d) {
	int sum = 0;
	for (int i = 0; i < n; i++) {
		switch ((i * 7 + (int)a) % 9) {
		case 0:
			sum += wait_for(sum & 15);
			break;
		case 1:
			sum ^= (int)d + wait_for(i) * wait_for(i + 1);
			break;
		case 2:
			if (sum & 1)
				sum += wait_for(2);
			else
				sum -= 5;
			break;
		case 3:
			for (int j = 0; j < 3; j++) {
				sum += j * wait_for(j);
				if (sum % 5 == 0)
					goto out;
			}
			break;
		case 4:
			sum = sum * 3 + (sum > 100 ? wait_for(sum & 7) : sum < 0 ? wait_for(1) : 2);
			break;
		case 5:
			while (sum > 1000) {
				sum /= 2;
				if (wait_for(0) < 0)
					abort();
			}
			break;
		case 6:
			sum += (wait_for(1), wait_for(2), wait_for(3)) + i; // fall through
		case 7:
			sum ^= 0x55;
			break;
		default:
			continue;
		}
		sum += 1;
	}
out:
	return sum;
}

static int numbers(int n, int64_t a, double d) {
	float f = (float)d;
	double g = d;
	int64_t h = a;
	for (int i = 0; i < n; i++) {
		f = f * 1.01f + (float)wait_for(i);
		g = g / 1.5 + (double)f;
		h = (int64_t)((uint64_t)h * 6364136223846793005u + (uint64_t)wait_for(i & 3)) + (int64_t)g;
	}
	printf("%a %a %lld\n", (double)f, g, (long long)h);
	return (int)h;
}

static job jobs[] = {tree, paths, numbers};

static int compare(const void *a, const void *b) {
	return *(const int *)a - *(const int *)b + 0 * wait_for(1);
}

int main(int argc, char **argv) {
	for (int i = 0; i < 9; i++) {
		volatile int which = i % 3;
		int r = jobs[which](5 + i % 2 + (which ? 20 : 0), 1000003LL * i, 0.5 + i);
		printf("%d %d %d\n", i, which, r);
	}
	int a[20];
	for (int i = 0; i < 20; i++)
		a[i] = (i * 7919) % 101 - wait_for(1);
	qsort(a, 20, sizeof *a, compare);
	for (int i = 0; i < 20; i++)
		printf("%d ", a[i]);
	printf("%s\n", argc > 1 ? argv[1] : "");
	char line[64];
	int n = 0;
	while (fgets(line, sizeof line, stdin)) {
		if (strcmp(line, "exit\n") == 0)
			exit(7);
		if (strcmp(line, "abort\n") == 0)
			abort();
		printf("%d: %s", ++n, line);
		fflush(stdout);
	}
	printf("done %d\n", wait_for(7));
	return 3;
}

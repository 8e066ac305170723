// A hash map with chains, all of it in malloc'ed pieces: the bucket array (reallocated when the map
// grows), and for each entry a node, a key string and a value blob. The exports speak integers; the key
// of number k is the string "key-k", and the value of v a blob of 8 + v%200 bytes.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT(name) __attribute__((export_name(#name)))

typedef struct node {
	struct node *next;
	char *key;
	unsigned char *value;
	uint32_t value_len;
} node;

static node **buckets;
static uint32_t bucket_count; // a power of two, or 0 before the first put
static uint32_t entry_count;

static void *must_malloc(size_t n) {
	void *p = malloc(n);
	if (p == NULL) {
		__builtin_trap();
	}
	return p;
}

// format_key writes "key-" and the decimal digits of k. buf holds 25 bytes.
static void format_key(char *buf, uint64_t k) {
	char digits[20];
	int n = 0;
	do {
		digits[n++] = (char)('0' + k % 10);
		k /= 10;
	} while (k != 0);
	memcpy(buf, "key-", 4);
	buf += 4;
	while (n > 0) {
		*buf++ = digits[--n];
	}
	*buf = 0;
}

static uint64_t fnv1a(uint64_t h, const void *bytes, size_t n) {
	const unsigned char *b = bytes;
	for (size_t i = 0; i < n; i++) {
		h = (h ^ b[i]) * 1099511628211u;
	}
	return h;
}

static uint64_t hash_key(const char *key) {
	return fnv1a(14695981039346656037u, key, strlen(key));
}

// The value's bytes: v itself, little-endian, and then a pattern that follows from it.
static void set_value(node *e, uint64_t v) {
	e->value_len = (uint32_t)(8 + v % 200);
	e->value = must_malloc(e->value_len);
	memcpy(e->value, &v, 8);
	for (uint32_t i = 8; i < e->value_len; i++) {
		e->value[i] = (unsigned char)(v + i);
	}
}

// get_value traps if the blob is not as set_value has made it.
static uint64_t get_value(const node *e) {
	uint64_t v;
	memcpy(&v, e->value, 8);
	if (e->value_len != 8 + v % 200) {
		__builtin_trap();
	}
	for (uint32_t i = 8; i < e->value_len; i++) {
		if (e->value[i] != (unsigned char)(v + i)) {
			__builtin_trap();
		}
	}
	return v;
}

static void grow_buckets(void) {
	uint32_t count = bucket_count == 0 ? 16 : bucket_count * 2;
	node **grown = calloc(count, sizeof *grown);
	if (grown == NULL) {
		__builtin_trap();
	}
	for (uint32_t i = 0; i < bucket_count; i++) {
		for (node *e = buckets[i], *next; e != NULL; e = next) {
			next = e->next;
			node **head = &grown[hash_key(e->key) & (count - 1)];
			e->next = *head;
			*head = e;
		}
	}
	free(buckets);
	buckets = grown;
	bucket_count = count;
}

// find returns the pointer that points to the entry, or to the NULL at the end of its chain.
static node **find(const char *key) {
	node **at = &buckets[hash_key(key) & (bucket_count - 1)];
	while (*at != NULL && strcmp((*at)->key, key) != 0) {
		at = &(*at)->next;
	}
	return at;
}

// put returns 1 if the key is new, 0 if its value was replaced.
EXPORT(put) int32_t put(uint64_t k, uint64_t v) {
	char key[25];
	format_key(key, k);
	if (entry_count >= bucket_count) {
		grow_buckets();
	}
	node **at = find(key);
	if (*at != NULL) {
		free((*at)->value);
		set_value(*at, v);
		return 0;
	}
	node *e = must_malloc(sizeof *e);
	e->next = NULL;
	e->key = must_malloc(strlen(key) + 1);
	strcpy(e->key, key);
	set_value(e, v);
	*at = e;
	entry_count++;
	return 1;
}

// get returns the value, or -1 for a key that is absent.
EXPORT(get) int64_t get(uint64_t k) {
	char key[25];
	format_key(key, k);
	if (bucket_count == 0) {
		return -1;
	}
	const node *e = *find(key);
	return e == NULL ? -1 : (int64_t)get_value(e);
}

// del returns 1 if the key was there.
EXPORT(del) int32_t del(uint64_t k) {
	char key[25];
	format_key(key, k);
	if (bucket_count == 0) {
		return 0;
	}
	node **at = find(key);
	node *e = *at;
	if (e == NULL) {
		return 0;
	}
	*at = e->next;
	free(e->key);
	free(e->value);
	free(e);
	entry_count--;
	return 1;
}

EXPORT(size) int32_t size(void) {
	return (int32_t)entry_count;
}

// checksum is the sum, over all entries, of FNV-1a of the key string followed by the value's 8
// little-endian bytes. It does not depend on the order of the entries.
EXPORT(checksum) int64_t checksum(void) {
	uint64_t sum = 0;
	for (uint32_t i = 0; i < bucket_count; i++) {
		for (const node *e = buckets[i]; e != NULL; e = e->next) {
			uint64_t v = get_value(e);
			sum += fnv1a(hash_key(e->key), &v, 8);
		}
	}
	return (int64_t)sum;
}

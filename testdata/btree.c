// A B-tree from uint64 to uint64, each node malloc'ed by itself: inserting splits nodes, removing
// borrows and merges, so that one call can change pages that are far apart.

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT(name) __attribute__((export_name(#name)))

enum {
	MIN_DEGREE = 4,
	MIN_KEYS = MIN_DEGREE - 1, // in every node but the root
	MAX_KEYS = 2 * MIN_DEGREE - 1,
};

typedef struct node {
	uint32_t n; // keys in use; an inner node has n+1 children
	bool leaf;
	uint64_t keys[MAX_KEYS];
	uint64_t values[MAX_KEYS];
	struct node *children[]; // MAX_KEYS+1 of them, in inner nodes only
} node;

static node *root;
static uint64_t entry_count;

static node *new_node(bool leaf) {
	size_t bytes = sizeof(node) + (leaf ? 0 : (MAX_KEYS + 1) * sizeof(node *));
	node *t = malloc(bytes);
	if (t == NULL) {
		__builtin_trap();
	}
	memset(t, 0, bytes);
	t->leaf = leaf;
	return t;
}

// position returns the index of the first key that is not less than k.
static uint32_t position(const node *t, uint64_t k) {
	uint32_t i = 0;
	while (i < t->n && t->keys[i] < k) {
		i++;
	}
	return i;
}

// open_gap and close_gap move the keys from i on by one place; the children's counterparts do the
// same for the children. The caller keeps n.
static void open_gap(node *t, uint32_t i) {
	memmove(&t->keys[i + 1], &t->keys[i], (t->n - i) * sizeof t->keys[0]);
	memmove(&t->values[i + 1], &t->values[i], (t->n - i) * sizeof t->values[0]);
}

static void close_gap(node *t, uint32_t i) {
	memmove(&t->keys[i], &t->keys[i + 1], (t->n - i - 1) * sizeof t->keys[0]);
	memmove(&t->values[i], &t->values[i + 1], (t->n - i - 1) * sizeof t->values[0]);
}

static void open_child_gap(node *t, uint32_t i) {
	memmove(&t->children[i + 1], &t->children[i], (t->n + 1 - i) * sizeof t->children[0]);
}

static void close_child_gap(node *t, uint32_t i) {
	memmove(&t->children[i], &t->children[i + 1], (t->n - i) * sizeof t->children[0]);
}

static void copy_entry(node *to, uint32_t i, const node *from, uint32_t j) {
	to->keys[i] = from->keys[j];
	to->values[i] = from->values[j];
}

// split_child halves the full child i of t and moves its median up into t, which is not full.
static void split_child(node *t, uint32_t i) {
	node *left = t->children[i];
	node *right = new_node(left->leaf);
	right->n = MIN_KEYS;
	memcpy(right->keys, &left->keys[MIN_DEGREE], MIN_KEYS * sizeof right->keys[0]);
	memcpy(right->values, &left->values[MIN_DEGREE], MIN_KEYS * sizeof right->values[0]);
	if (!left->leaf) {
		memcpy(right->children, &left->children[MIN_DEGREE], MIN_DEGREE * sizeof right->children[0]);
	}
	left->n = MIN_KEYS;

	open_child_gap(t, i + 1);
	t->children[i + 1] = right;
	open_gap(t, i);
	copy_entry(t, i, left, MIN_KEYS);
	t->n++;
}

// insert returns 1 if the key is new, 0 if its value was replaced.
EXPORT(insert) int32_t insert(uint64_t k, uint64_t v) {
	if (root == NULL) {
		root = new_node(true);
	}
	if (root->n == MAX_KEYS) {
		node *above = new_node(false);
		above->children[0] = root;
		root = above;
		split_child(root, 0);
	}
	// Every node on the way down is made to have room before it is entered.
	for (node *t = root;;) {
		uint32_t i = position(t, k);
		if (i < t->n && t->keys[i] == k) {
			t->values[i] = v;
			return 0;
		}
		if (t->leaf) {
			open_gap(t, i);
			t->keys[i] = k;
			t->values[i] = v;
			t->n++;
			entry_count++;
			return 1;
		}
		if (t->children[i]->n == MAX_KEYS) {
			split_child(t, i);
			continue; // the median came up and may be k
		}
		t = t->children[i];
	}
}

// get returns the value, or -1 for a key that is absent.
EXPORT(get) int64_t get(uint64_t k) {
	const node *t = root;
	while (t != NULL) {
		uint32_t i = position(t, k);
		if (i < t->n && t->keys[i] == k) {
			return (int64_t)t->values[i];
		}
		t = t->leaf ? NULL : t->children[i];
	}
	return -1;
}

// merge_children joins child i, key i and child i+1 of t in child i, and frees the other.
static void merge_children(node *t, uint32_t i) {
	node *left = t->children[i];
	node *right = t->children[i + 1];
	copy_entry(left, left->n, t, i);
	memcpy(&left->keys[left->n + 1], right->keys, right->n * sizeof left->keys[0]);
	memcpy(&left->values[left->n + 1], right->values, right->n * sizeof left->values[0]);
	if (!left->leaf) {
		memcpy(&left->children[left->n + 1], right->children, (right->n + 1) * sizeof left->children[0]);
	}
	left->n += right->n + 1;
	close_child_gap(t, i + 1);
	close_gap(t, i);
	t->n--;
	free(right);
}

// refill_child makes child i of t hold more than MIN_KEYS keys and returns the child that now covers
// what child i covered.
static node *refill_child(node *t, uint32_t i) {
	node *child = t->children[i];
	if (child->n > MIN_KEYS) {
		return child;
	}
	if (i > 0 && t->children[i - 1]->n > MIN_KEYS) { // borrow from the left
		node *left = t->children[i - 1];
		open_gap(child, 0);
		if (!child->leaf) {
			open_child_gap(child, 0);
			child->children[0] = left->children[left->n];
		}
		copy_entry(child, 0, t, i - 1);
		copy_entry(t, i - 1, left, left->n - 1);
		child->n++;
		left->n--;
		return child;
	}
	if (i < t->n && t->children[i + 1]->n > MIN_KEYS) { // borrow from the right
		node *right = t->children[i + 1];
		copy_entry(child, child->n, t, i);
		if (!child->leaf) {
			child->children[child->n + 1] = right->children[0];
			close_child_gap(right, 0);
		}
		copy_entry(t, i, right, 0);
		close_gap(right, 0);
		child->n++;
		right->n--;
		return child;
	}
	if (i == t->n) {
		i--;
	}
	merge_children(t, i);
	return t->children[i];
}

// remove_from removes k from the subtree t, which is the root or holds more than MIN_KEYS keys.
static bool remove_from(node *t, uint64_t k) {
	for (;;) {
		uint32_t i = position(t, k);
		bool here = i < t->n && t->keys[i] == k;
		if (t->leaf) {
			if (here) {
				close_gap(t, i);
				t->n--;
			}
			return here;
		}
		if (!here) {
			t = refill_child(t, i);
			continue;
		}
		node *left = t->children[i];
		node *right = t->children[i + 1];
		if (left->n > MIN_KEYS) { // its place is taken by the greatest key below it
			const node *leaf = left;
			while (!leaf->leaf) {
				leaf = leaf->children[leaf->n];
			}
			copy_entry(t, i, leaf, leaf->n - 1);
			k = t->keys[i];
			t = left;
		} else if (right->n > MIN_KEYS) { // or by the least key above it
			const node *leaf = right;
			while (!leaf->leaf) {
				leaf = leaf->children[0];
			}
			copy_entry(t, i, leaf, 0);
			k = t->keys[i];
			t = right;
		} else {
			merge_children(t, i);
			t = left;
		}
	}
}

// remove returns 1 if the key was there.
EXPORT(remove) int32_t remove_key(uint64_t k) {
	if (root == NULL) {
		return 0;
	}
	bool removed = remove_from(root, k);
	if (root->n == 0) {
		node *old = root;
		root = old->leaf ? NULL : old->children[0];
		free(old);
	}
	entry_count -= removed;
	return removed;
}

EXPORT(count) int64_t count(void) {
	return (int64_t)entry_count;
}

// What check returns.
enum {
	OK = 0,
	BAD_ORDER = 1,     // a key outside the bounds that its ancestors and neighbours set
	BAD_OCCUPANCY = 2, // too few or too many keys in a node
	BAD_DEPTH = 3,     // leaves at different depths
	BAD_COUNT = 4,     // count disagrees with the keys in the tree
};

typedef struct {
	uint64_t keys;
	uint64_t previous;
	int32_t leaf_depth; // -1 until the first leaf
} walk;

static int32_t check_node(const node *t, int32_t depth, walk *w) {
	if (t->n > MAX_KEYS || t->n < (t == root ? 1u : (uint32_t)MIN_KEYS)) {
		return BAD_OCCUPANCY;
	}
	if (t->leaf) {
		if (w->leaf_depth < 0) {
			w->leaf_depth = depth;
		}
		if (w->leaf_depth != depth) {
			return BAD_DEPTH;
		}
	}
	for (uint32_t i = 0; i <= t->n; i++) {
		if (!t->leaf) {
			int32_t problem = check_node(t->children[i], depth + 1, w);
			if (problem != OK) {
				return problem;
			}
		}
		if (i == t->n) {
			break;
		}
		if (w->keys > 0 && t->keys[i] <= w->previous) {
			return BAD_ORDER;
		}
		w->previous = t->keys[i];
		w->keys++;
	}
	return OK;
}

// check walks the whole tree and returns 0 if it is a B-tree, else one of the numbers above.
EXPORT(check) int32_t check(void) {
	walk w = {.leaf_depth = -1};
	if (root != NULL) {
		int32_t problem = check_node(root, 0, &w);
		if (problem != OK) {
			return problem;
		}
	}
	return w.keys == entry_count ? OK : BAD_COUNT;
}

// A guest with debug information: what a trap says of the source.
// Built with -g and kept with it, unlike the other C guests.

__attribute__((export_name("fail"))) int fail(int n) {
	if (n > 0)
		__builtin_trap(); // line 6
	return n;
}

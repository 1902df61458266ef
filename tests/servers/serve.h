// What the small HTTPS servers in C share: options, the listening socket, and as much HTTP as the tests speak.
#pragma once

// A TLS library. Each connection has a process of its own, and the library is set up in there.
struct stack {
	// Its name and version.
	const char *(*library)(void);
	// Leads the handshake on a connected socket; NULL when it fails.
	void *(*accept)(int fd);
	// Reads at least one byte; 0 or less at the end.
	int (*read)(void *connection, unsigned char *buffer, int size);
	// Writes some of it; 0 or less when that fails.
	int (*write)(void *connection, const unsigned char *bytes, int size);
	// Says goodbye.
	void (*close)(void *connection);
};

// The value of `NAME=value` on the command line; NULL without one.
const char *option(const char *name);
// The same, and the end of the program without one.
const char *required(const char *name);
// The words of a list with commas, one a call; NULL after the last.
const char *word(const char *list, int index);
// Ends the connection's process with a reason.
_Noreturn void fail(const char *what, long code);
// Serves until it is killed.
int serve(int argc, char **argv, const struct stack *stack);

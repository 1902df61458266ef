// A small HTTPS server over some TLS library.
//
//   PROGRAM key=FILE cert=FILE [NAME=VALUE...]
//
// Prints `listening PORT LIBRARY VERSION`, then serves HTTP/1.1 with keep-alive:
//
//   POST /echo               the body comes back
//   GET  /EWS/Exchange.asmx  401, as Exchange answers who has not logged in
//
// and 404 for all else. What went wrong with a connection stands on the standard error.
#include "serve.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

// The longest body that is echoed, and the longest head that is read.
#define BODY (64L << 20)
#define HEAD (16 << 10)

static char **arguments;

const char *option(const char *name) {
	size_t length = strlen(name);
	for (char **argument = arguments; *argument; argument++)
		if (!strncmp(*argument, name, length) && (*argument)[length] == '=') return *argument + length + 1;
	return NULL;
}

const char *required(const char *name) {
	const char *value = option(name);
	if (!value) {
		fprintf(stderr, "%s=VALUE is missing\n", name);
		exit(2);
	}
	return value;
}

const char *word(const char *list, int index) {
	static char copy[2048];
	char *rest = NULL;
	snprintf(copy, sizeof copy, "%s", list);
	char *found = strtok_r(copy, ",", &rest);
	while (found && index--) found = strtok_r(NULL, ",", &rest);
	return found;
}

void fail(const char *what, long code) {
	fprintf(stderr, "%s: %ld\n", what, code);
	exit(1);
}

static int write_all(const struct stack *stack, void *connection, const unsigned char *bytes, long length) {
	while (length > 0) {
		int written = stack->write(connection, bytes, length < HEAD ? (int)length : HEAD);
		if (written <= 0) return 0;
		bytes += written;
		length -= written;
	}
	return 1;
}

static int say(const struct stack *stack, void *connection, const char *text) {
	return write_all(stack, connection, (const unsigned char *)text, (long)strlen(text));
}

static int refuse(const struct stack *stack, void *connection, const char *head) {
	if (!strncmp(head, "GET /EWS/Exchange.asmx ", 23))
		return say(stack, connection,
			"HTTP/1.1 401 Unauthorized\r\nServer: Microsoft-IIS/8.5\r\nWWW-Authenticate: Negotiate\r\n"
			"WWW-Authenticate: NTLM\r\nContent-Length: 0\r\n\r\n");
	return say(stack, connection, "HTTP/1.1 404 Not Found\r\nServer: Microsoft-IIS/8.5\r\nContent-Length: 0\r\n\r\n");
}

// Reads the rest of a body that has begun to arrive, and sends it back.
static int echo(const struct stack *stack, void *connection, const unsigned char *begun, long have, long length) {
	unsigned char *body = length <= BODY ? malloc((size_t)length + 1) : NULL;
	if (!body) return 0;
	memcpy(body, begun, (size_t)have);
	while (have < length) {
		long wanted = length - have < HEAD ? length - have : HEAD;
		int count = stack->read(connection, body + have, (int)wanted);
		if (count <= 0) return 0;
		have += count;
	}
	char head[80];
	snprintf(head, sizeof head, "HTTP/1.1 200 OK\r\nContent-Length: %ld\r\n\r\n", length);
	int done = say(stack, connection, head) && write_all(stack, connection, body, length);
	free(body);
	return done;
}

static void talk(const struct stack *stack, void *connection) {
	static unsigned char buffer[HEAD + 1];
	int have = 0;
	for (;;) {
		buffer[have] = 0;
		char *head = (char *)buffer, *end = strstr(head, "\r\n\r\n");
		if (!end) {
			int count = have < HEAD ? stack->read(connection, buffer + have, HEAD - have) : 0;
			if (count <= 0) return;
			have += count;
			continue;
		}
		end[2] = 0;
		char *field = strcasestr(head, "\r\nContent-Length:");
		long length = field ? atol(field + 17) : 0;
		int last = strcasestr(head, "\r\nConnection: close") != NULL;
		int begun = have - (int)(end + 4 - head);
		if (begun > length) return; // nobody sends requests in advance
		int done = strncmp(head, "POST /echo ", 11) ? refuse(stack, connection, head)
			: echo(stack, connection, (unsigned char *)end + 4, begun, length);
		if (!done || last) return;
		have = 0;
	}
}

int serve(int argc, char **argv, const struct stack *stack) {
	(void)argc;
	arguments = argv;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN);
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof address;
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	if (bind(listener, (struct sockaddr *)&address, size) || listen(listener, 64)
		|| getsockname(listener, (struct sockaddr *)&address, &size)) {
		perror("listen");
		return 1;
	}
	printf("listening %d %s\n", ntohs(address.sin_port), stack->library());
	fflush(stdout);
	for (;;) {
		int fd = accept(listener, NULL, NULL);
		if (fd < 0 || fork()) {
			if (fd >= 0) close(fd);
			continue;
		}
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(listener);
		int on = 1;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		void *connection = stack->accept(fd);
		if (connection) {
			talk(stack, connection);
			stack->close(connection);
		}
		_exit(0);
	}
}

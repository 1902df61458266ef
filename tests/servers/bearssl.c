// BearSSL: min=1.0 max=1.2 ciphers=SUITE,... (of those below)
#include "serve.h"

#include <bearssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static br_ssl_server_context server;
static br_sslio_context io;
static int descriptor;

static const struct { const char *name; uint16_t id; } known[] = {
	{ "RSA_WITH_3DES_EDE_CBC_SHA", BR_TLS_RSA_WITH_3DES_EDE_CBC_SHA },
	{ "RSA_WITH_AES_128_CBC_SHA", BR_TLS_RSA_WITH_AES_128_CBC_SHA },
	{ "RSA_WITH_AES_256_GCM_SHA384", BR_TLS_RSA_WITH_AES_256_GCM_SHA384 },
	{ "ECDHE_RSA_WITH_AES_128_CBC_SHA", BR_TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA },
	{ "ECDHE_RSA_WITH_AES_128_GCM_SHA256", BR_TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 },
	{ "ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256", BR_TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 },
};

struct bytes { unsigned char *data; size_t length; };

static void append(void *to, const void *data, size_t length) {
	struct bytes *bytes = to;
	bytes->data = realloc(bytes->data, bytes->length + length);
	memcpy(bytes->data + bytes->length, data, length);
	bytes->length += length;
}

// The objects of a PEM file; how many.
static size_t read_pem(const char *path, struct bytes *objects, size_t room) {
	br_pem_decoder_context decoder;
	unsigned char text[1 << 17];
	FILE *file = fopen(path, "rb");
	if (!file) fail(path, 0);
	size_t left = fread(text, 1, sizeof text, file), count = 0;
	const unsigned char *rest = text;
	br_pem_decoder_init(&decoder);
	while (left) {
		size_t taken = br_pem_decoder_push(&decoder, rest, left);
		rest += taken;
		left -= taken;
		switch (br_pem_decoder_event(&decoder)) {
		case BR_PEM_BEGIN_OBJ:
			if (count == room) fail(path, 1);
			br_pem_decoder_setdest(&decoder, append, &objects[count]);
			break;
		case BR_PEM_END_OBJ: count++; break;
		case BR_PEM_ERROR: fail(path, 2);
		}
	}
	return count;
}

static int receive(void *context, unsigned char *buffer, size_t size) {
	(void)context;
	ssize_t count = read(descriptor, buffer, size);
	return count > 0 ? (int)count : -1;
}

static int transmit(void *context, const unsigned char *bytes, size_t size) {
	(void)context;
	ssize_t count = write(descriptor, bytes, size);
	return count > 0 ? (int)count : -1;
}

static unsigned version(const char *text) { return (unsigned)(BR_TLS10 + text[2] - '0'); }

static void *accept_tls(int fd) {
	static unsigned char buffer[BR_SSL_BUFSIZE_BIDI];
	static struct bytes certificates[32], key_text[1];
	static br_x509_certificate chain[32];
	static br_skey_decoder_context key;
	size_t count = read_pem(required("cert"), certificates, 32);
	for (size_t index = 0; index < count; index++)
		chain[index] = (br_x509_certificate){ certificates[index].data, certificates[index].length };
	read_pem(required("key"), key_text, 1);
	br_skey_decoder_init(&key);
	br_skey_decoder_push(&key, key_text->data, key_text->length);
	const br_rsa_private_key *rsa = br_skey_decoder_get_rsa(&key);
	if (!rsa) fail("key", br_skey_decoder_last_error(&key));

	br_ssl_server_init_full_rsa(&server, chain, count, rsa);
	br_ssl_engine_set_versions(&server.eng, version(required("min")), version(required("max")));
	uint16_t suites[16];
	const char *name;
	int chosen = 0;
	for (; chosen < 16 && (name = word(required("ciphers"), chosen)); chosen++) {
		suites[chosen] = 0;
		for (size_t index = 0; index < sizeof known / sizeof *known; index++)
			if (!strcmp(known[index].name, name)) suites[chosen] = known[index].id;
		if (!suites[chosen]) fail(name, 0);
	}
	br_ssl_engine_set_suites(&server.eng, suites, (size_t)chosen);
	br_ssl_engine_set_buffer(&server.eng, buffer, sizeof buffer, 1);
	if (!br_ssl_server_reset(&server)) fail("reset", br_ssl_engine_last_error(&server.eng));
	descriptor = fd;
	br_sslio_init(&io, &server.eng, receive, NULL, transmit, NULL);
	if (br_sslio_flush(&io)) fail("handshake", br_ssl_engine_last_error(&server.eng));
	return &io;
}

static int read_tls(void *connection, unsigned char *buffer, int size) {
	return br_sslio_read(connection, buffer, (size_t)size);
}

static int write_tls(void *connection, const unsigned char *bytes, int size) {
	int count = br_sslio_write(connection, bytes, (size_t)size);
	return count > 0 && !br_sslio_flush(connection) ? count : -1;
}

static void close_tls(void *connection) { br_sslio_close(connection); }

// The library does not tell its own; this is the one of Debian 12.
static const char *library(void) { return "BearSSL 0.6"; }

int main(int argc, char **argv) {
	static const struct stack stack = { library, accept_tls, read_tls, write_tls, close_tls };
	return serve(argc, argv, &stack);
}

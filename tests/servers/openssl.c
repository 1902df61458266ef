// OpenSSL from 1.1.0 on: min=1.0 max=1.3 ciphers=LIST groups=LIST dh=1024|2048 sni=NAME
#include "serve.h"

#include <openssl/dh.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>

static void check(int done, const char *what) {
	if (!done) fail(what, (long)ERR_get_error());
}

static int version(const char *text) {
	return TLS1_VERSION + text[2] - '0';
}

// A hello without the name, or with another, is refused.
static int only_by_name(SSL *ssl, int *alert, void *wanted) {
	const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
	*alert = SSL_AD_UNRECOGNIZED_NAME;
	return name && !strcmp(name, wanted) ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static void *accept_tls(int fd) {
	SSL_CTX *context = SSL_CTX_new(TLS_server_method());
	const char *value;
	SSL_CTX_set_security_level(context, 0);
	check(SSL_CTX_set_min_proto_version(context, version(required("min"))), "min");
	check(SSL_CTX_set_max_proto_version(context, version(required("max"))), "max");
	check(SSL_CTX_set_cipher_list(context, required("ciphers")), "ciphers");
	check(SSL_CTX_use_certificate_chain_file(context, required("cert")), "cert");
	check(SSL_CTX_use_PrivateKey_file(context, required("key"), SSL_FILETYPE_PEM), "key");
	SSL_CTX_set_options(context, SSL_OP_CIPHER_SERVER_PREFERENCE);
	if ((value = option("groups"))) check((int)SSL_CTX_set1_curves_list(context, value), "groups");
	if ((value = option("dh"))) {
		DH *group = strcmp(value, "1024") ? DH_get_2048_256() : DH_get_1024_160();
		check((int)SSL_CTX_set_tmp_dh(context, group), "dh");
	}
	if ((value = option("sni"))) {
		SSL_CTX_set_tlsext_servername_callback(context, only_by_name);
		SSL_CTX_set_tlsext_servername_arg(context, (void *)value);
	}
	SSL *ssl = SSL_new(context);
	SSL_set_fd(ssl, fd);
	check(SSL_accept(ssl) == 1, "accept");
	return ssl;
}

static int read_tls(void *connection, unsigned char *buffer, int size) { return SSL_read(connection, buffer, size); }

static int write_tls(void *connection, const unsigned char *bytes, int size) {
	return SSL_write(connection, bytes, size);
}

static void close_tls(void *connection) { SSL_shutdown(connection); }

static const char *library(void) { return OpenSSL_version(OPENSSL_VERSION); }

int main(int argc, char **argv) {
	static const struct stack stack = { library, accept_tls, read_tls, write_tls, close_tls };
	return serve(argc, argv, &stack);
}

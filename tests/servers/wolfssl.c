// wolfSSL: min=1.1 max=1.2 ciphers=LIST dh=FILE
#include "serve.h"

#include <wolfssl/options.h>
#include <wolfssl/ssl.h>

static void check(int done, const char *what) {
	if (done != WOLFSSL_SUCCESS) fail(what, done);
}

static WOLFSSL_METHOD *method(const char *newest) {
	// Each speaks one version.
	return newest[2] == '1' ? wolfTLSv1_1_server_method() : wolfTLSv1_2_server_method();
}

static void *accept_tls(int fd) {
	wolfSSL_Init();
	WOLFSSL_CTX *context = wolfSSL_CTX_new(method(required("max")));
	if (!context) fail("context", 0);
	check(wolfSSL_CTX_use_certificate_chain_file(context, required("cert")), "cert");
	check(wolfSSL_CTX_use_PrivateKey_file(context, required("key"), WOLFSSL_FILETYPE_PEM), "key");
	check(wolfSSL_CTX_set_cipher_list(context, required("ciphers")), "ciphers");
	WOLFSSL *ssl = wolfSSL_new(context);
	if (!ssl) fail("connection", 0);
	if (option("dh")) check(wolfSSL_SetTmpDH_file(ssl, option("dh"), WOLFSSL_FILETYPE_PEM), "dh");
	check(wolfSSL_set_fd(ssl, fd), "socket");
	if (wolfSSL_accept(ssl) != WOLFSSL_SUCCESS) fail("accept", wolfSSL_get_error(ssl, 0));
	return ssl;
}

static int read_tls(void *connection, unsigned char *buffer, int size) {
	return wolfSSL_read(connection, buffer, size);
}

static int write_tls(void *connection, const unsigned char *bytes, int size) {
	return wolfSSL_write(connection, bytes, size);
}

static void close_tls(void *connection) { wolfSSL_shutdown(connection); }

static const char *library(void) { return "wolfSSL " LIBWOLFSSL_VERSION_STRING; }

int main(int argc, char **argv) {
	static const struct stack stack = { library, accept_tls, read_tls, write_tls, close_tls };
	return serve(argc, argv, &stack);
}

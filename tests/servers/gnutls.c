// GnuTLS: priority=STRING (gnutls_priority_init(3), after NORMAL) dh=FILE, or a group of 2048 bits
#include "serve.h"

#include <gnutls/gnutls.h>
#include <stdio.h>

static int check(int code, const char *what) {
	if (code < 0) fail(what, code);
	return code;
}

static void choose_group(gnutls_certificate_credentials_t credentials) {
	gnutls_dh_params_t group;
	gnutls_datum_t text;
	check(gnutls_load_file(option("dh"), &text), "dh");
	check(gnutls_dh_params_init(&group), "dh");
	check(gnutls_dh_params_import_pkcs3(group, &text, GNUTLS_X509_FMT_PEM), "dh");
	gnutls_certificate_set_dh_params(credentials, group);
}

static void *accept_tls(int fd) {
	gnutls_certificate_credentials_t credentials;
	gnutls_session_t session;
	char priority[512];
	check(gnutls_certificate_allocate_credentials(&credentials), "credentials");
	check(gnutls_certificate_set_x509_key_file(credentials, required("cert"), required("key"), GNUTLS_X509_FMT_PEM),
		"certificate");
	if (option("dh")) choose_group(credentials);
	else check(gnutls_certificate_set_known_dh_params(credentials, GNUTLS_SEC_PARAM_MEDIUM), "dh");
	check(gnutls_init(&session, GNUTLS_SERVER), "session");
	snprintf(priority, sizeof priority, "NORMAL:%s", required("priority"));
	check(gnutls_priority_set_direct(session, priority, NULL), "priority");
	check(gnutls_credentials_set(session, GNUTLS_CRD_CERTIFICATE, credentials), "credentials");
	gnutls_transport_set_int(session, fd);
	int code;
	while ((code = gnutls_handshake(session)) < 0 && !gnutls_error_is_fatal(code)) {}
	check(code, "handshake");
	return session;
}

static int read_tls(void *connection, unsigned char *buffer, int size) {
	return (int)gnutls_record_recv(connection, buffer, (size_t)size);
}

static int write_tls(void *connection, const unsigned char *bytes, int size) {
	return (int)gnutls_record_send(connection, bytes, (size_t)size);
}

static void close_tls(void *connection) { gnutls_bye(connection, GNUTLS_SHUT_WR); }

static const char *library(void) {
	static char text[64];
	snprintf(text, sizeof text, "GnuTLS %s", gnutls_check_version(NULL));
	return text;
}

int main(int argc, char **argv) {
	static const struct stack stack = { library, accept_tls, read_tls, write_tls, close_tls };
	return serve(argc, argv, &stack);
}

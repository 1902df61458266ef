// mbedTLS 2: min=1.0 max=1.2 ciphers=SUITE,... groups=secp256r1,... dh=FILE
#include "serve.h"

#include <mbedtls/ctr_drbg.h>
#include <mbedtls/dhm.h>
#include <mbedtls/ecp.h>
#include <mbedtls/entropy.h>
#include <mbedtls/net_sockets.h>
#include <mbedtls/ssl.h>
#include <mbedtls/version.h>
#include <stddef.h>

static mbedtls_entropy_context entropy;
static mbedtls_ctr_drbg_context random_bytes;
static mbedtls_ssl_config config;
static mbedtls_x509_crt chain;
static mbedtls_pk_context key;
static mbedtls_ssl_context ssl;
static mbedtls_net_context net;

static void check(int code, const char *what) {
	if (code) fail(what, code);
}

static int minor(const char *text) { return text[2] - '0' + MBEDTLS_SSL_MINOR_VERSION_1; }

static void choose_ciphers(void) {
	static int ids[32];
	const char *name;
	for (int count = 0; count < 31 && (name = word(required("ciphers"), count)); count++)
		if (!(ids[count] = mbedtls_ssl_get_ciphersuite_id(name))) fail(name, 0);
	mbedtls_ssl_conf_ciphersuites(&config, ids);
}

static void choose_groups(void) {
	static mbedtls_ecp_group_id ids[8];
	const char *name;
	for (int count = 0; count < 7 && (name = word(option("groups"), count)); count++) {
		const mbedtls_ecp_curve_info *curve = mbedtls_ecp_curve_info_from_name(name);
		if (!curve) fail(name, 0);
		ids[count] = curve->grp_id;
	}
	mbedtls_ssl_conf_curves(&config, ids);
}

static void choose_group(void) {
	static mbedtls_dhm_context group;
	mbedtls_dhm_init(&group);
	check(mbedtls_dhm_parse_dhmfile(&group, option("dh")), "dh");
	check(mbedtls_ssl_conf_dh_param_ctx(&config, &group), "dh");
}

static void *accept_tls(int fd) {
	mbedtls_entropy_init(&entropy);
	mbedtls_ctr_drbg_init(&random_bytes);
	mbedtls_ssl_config_init(&config);
	mbedtls_x509_crt_init(&chain);
	mbedtls_pk_init(&key);
	mbedtls_ssl_init(&ssl);
	check(mbedtls_ctr_drbg_seed(&random_bytes, mbedtls_entropy_func, &entropy, NULL, 0), "random");
	check(mbedtls_x509_crt_parse_file(&chain, required("cert")), "cert");
	check(mbedtls_pk_parse_keyfile(&key, required("key"), NULL), "key");
	check(mbedtls_ssl_config_defaults(&config, MBEDTLS_SSL_IS_SERVER, MBEDTLS_SSL_TRANSPORT_STREAM,
		MBEDTLS_SSL_PRESET_DEFAULT), "defaults");
	mbedtls_ssl_conf_rng(&config, mbedtls_ctr_drbg_random, &random_bytes);
	check(mbedtls_ssl_conf_own_cert(&config, &chain, &key), "own certificate");
	mbedtls_ssl_conf_min_version(&config, MBEDTLS_SSL_MAJOR_VERSION_3, minor(required("min")));
	mbedtls_ssl_conf_max_version(&config, MBEDTLS_SSL_MAJOR_VERSION_3, minor(required("max")));
	mbedtls_ssl_conf_arc4_support(&config, MBEDTLS_SSL_ARC4_ENABLED);
	choose_ciphers();
	if (option("groups")) choose_groups();
	if (option("dh")) choose_group();
	check(mbedtls_ssl_setup(&ssl, &config), "setup");
	net.fd = fd;
	mbedtls_ssl_set_bio(&ssl, &net, mbedtls_net_send, mbedtls_net_recv, NULL);
	check(mbedtls_ssl_handshake(&ssl), "handshake");
	return &ssl;
}

static int read_tls(void *connection, unsigned char *buffer, int size) {
	// 0 is the end of TCP; an empty record is not seen here.
	return mbedtls_ssl_read(connection, buffer, (size_t)size);
}

static int write_tls(void *connection, const unsigned char *bytes, int size) {
	return mbedtls_ssl_write(connection, bytes, (size_t)size);
}

static void close_tls(void *connection) { mbedtls_ssl_close_notify(connection); }

static const char *library(void) { return "mbedTLS " MBEDTLS_VERSION_STRING; }

int main(int argc, char **argv) {
	static const struct stack stack = { library, accept_tls, read_tls, write_tls, close_tls };
	return serve(argc, argv, &stack);
}

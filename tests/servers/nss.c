// NSS: db=FOLDER min=1.0 max=1.2 ciphers=SUITE,... groups=secp256r1,...
//
// FOLDER is NSS's database with one certificate, its key and no password, as pk12util makes it; the
// suites have the names of NSS's own lists.
#include "serve.h"

#include <cert.h>
#include <keyhi.h>
#include <nss.h>
#include <pk11pub.h>
#include <private/pprio.h>
#include <prinit.h>
#include <ssl.h>
#include <sslproto.h>
#include <string.h>

static void check(int done, const char *what) {
	if (!done) fail(what, PR_GetError());
}

static PRUint16 version(const char *text) { return (PRUint16)(SSL_LIBRARY_VERSION_TLS_1_0 + text[2] - '0'); }

static void choose_suites(PRFileDesc *socket) {
	const PRUint16 *all = SSL_GetImplementedCiphers();
	for (int index = 0; index < SSL_GetNumImplementedCiphers(); index++) {
		SSLCipherSuiteInfo suite;
		check(!SSL_GetCipherSuiteInfo(all[index], &suite, sizeof suite), "suite");
		const char *name;
		int wanted = 0;
		for (int count = 0; (name = word(required("ciphers"), count)); count++)
			wanted |= !strcmp(name, suite.cipherSuiteName);
		check(!SSL_CipherPrefSet(socket, all[index], wanted), suite.cipherSuiteName);
	}
}

static void choose_groups(PRFileDesc *socket) {
	static const struct { const char *name; SSLNamedGroup group; } known[] = {
		{ "secp256r1", ssl_grp_ec_secp256r1 }, { "secp384r1", ssl_grp_ec_secp384r1 },
		{ "secp521r1", ssl_grp_ec_secp521r1 }, { "x25519", ssl_grp_ec_curve25519 },
	};
	for (unsigned index = 0; index < sizeof known / sizeof *known; index++)
		if (!strcmp(known[index].name, option("groups")))
			check(!SSL_NamedGroupConfig(socket, &known[index].group, 1), "groups");
}

static void *accept_tls(int fd) {
	check(!NSS_Init(required("db")), "db");
	check(!NSS_SetDomesticPolicy(), "policy");
	// This system's policy is for those who choose nothing.
	check(!NSS_OptionSet(NSS_TLS_VERSION_MIN_POLICY, SSL_LIBRARY_VERSION_TLS_1_0), "policy");
	PRFileDesc *socket = SSL_ImportFD(NULL, PR_ImportTCPSocket(fd));
	check(socket != NULL, "socket");
	SSLVersionRange range = { version(required("min")), version(required("max")) };
	check(!SSL_OptionSet(socket, SSL_SECURITY, PR_TRUE), "security");
	check(!SSL_OptionSet(socket, SSL_HANDSHAKE_AS_SERVER, PR_TRUE), "server");
	check(!SSL_OptionSet(socket, SSL_NO_CACHE, PR_TRUE), "cache");
	check(!SSL_OptionSet(socket, SSL_ENABLE_SERVER_DHE, PR_TRUE), "dhe");
	check(!SSL_VersionRangeSet(socket, &range), "versions");
	choose_suites(socket);
	if (option("groups")) choose_groups(socket);
	CERTCertListNode *first = CERT_LIST_HEAD(PK11_ListCerts(PK11CertListUser, NULL));
	SECKEYPrivateKey *key = PK11_FindKeyByAnyCert(first->cert, NULL);
	check(key != NULL, "key");
	check(!SSL_ConfigServerCert(socket, first->cert, key, NULL, 0), "certificate");
	check(!SSL_ResetHandshake(socket, PR_TRUE), "begin");
	check(!SSL_ForceHandshake(socket), "handshake");
	return socket;
}

static int read_tls(void *connection, unsigned char *buffer, int size) { return PR_Read(connection, buffer, size); }

static int write_tls(void *connection, const unsigned char *bytes, int size) {
	return PR_Write(connection, bytes, size);
}

static void close_tls(void *connection) { PR_Close(connection); }

static const char *library(void) { return "NSS " NSS_VERSION; }

int main(int argc, char **argv) {
	static const struct stack stack = { library, accept_tls, read_tls, write_tls, close_tls };
	return serve(argc, argv, &stack);
}

// A small HTTPS server on Go's crypto/tls.
//
//	gotls key=FILE cert=FILE min=1.0 max=1.3 ciphers=SUITE,... [groups=P256,P384,P521,X25519] [sni=NAME]
//
// Speaks as serve.c does. With sni, a hello without that name is refused.
package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
)

func main() {
	options := map[string]string{}
	for _, argument := range os.Args[1:] {
		name, value, _ := strings.Cut(argument, "=")
		options[name] = value
	}
	certificate, err := tls.LoadX509KeyPair(options["cert"], options["key"])
	if err != nil {
		log.Fatal(err)
	}
	config := &tls.Config{
		Certificates:     []tls.Certificate{certificate},
		MinVersion:       version(options["min"]),
		MaxVersion:       version(options["max"]),
		CipherSuites:     suites(options["ciphers"]),
		CurvePreferences: groups(options["groups"]),
		NextProtos:       []string{"http/1.1"},
	}
	if wanted := options["sni"]; wanted != "" {
		config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			if hello.ServerName != wanted {
				return nil, errors.New("no such server: " + strconv.Quote(hello.ServerName))
			}
			return nil, nil
		}
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("listening", listener.Addr().(*net.TCPAddr).Port, "Go", strings.TrimPrefix(runtime.Version(), "go"))
	http.HandleFunc("/", answer)
	log.Fatal(http.Serve(tls.NewListener(listener, config), nil))
}

func answer(writer http.ResponseWriter, request *http.Request) {
	writer.Header().Set("Server", "Microsoft-IIS/8.5")
	switch request.Method + " " + request.URL.Path {
	case "POST /echo":
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return
		}
		writer.Header().Set("Content-Length", strconv.Itoa(len(body)))
		writer.Write(body)
	case "GET /EWS/Exchange.asmx":
		writer.Header()["WWW-Authenticate"] = []string{"Negotiate", "NTLM"}
		writer.WriteHeader(http.StatusUnauthorized)
	default:
		writer.WriteHeader(http.StatusNotFound)
	}
}

func version(text string) uint16 {
	return tls.VersionTLS10 + uint16(text[2]-'0')
}

func suites(names string) (ids []uint16) {
	for _, name := range strings.Split(names, ",") {
		for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
			if suite.Name == name {
				ids = append(ids, suite.ID)
			}
		}
	}
	if len(ids) == 0 {
		log.Fatal("no such suites: ", names)
	}
	return ids
}

func groups(names string) (ids []tls.CurveID) {
	known := map[string]tls.CurveID{"P256": tls.CurveP256, "P384": tls.CurveP384, "P521": tls.CurveP521, "X25519": tls.X25519}
	for _, name := range strings.Split(names, ",") {
		if id, ok := known[name]; ok {
			ids = append(ids, id)
		}
	}
	return ids
}

// A legacy HTTPS server for the tests; runs on node 0.10, 0.12 and 4, so the language is that of 2013.
//
//   node https.js KEY CERT PROTOCOL CIPHERS
//
// PROTOCOL is TLSv1, TLSv1_1 or TLSv1_2, CIPHERS an OpenSSL list. Prints `listening PORT LIBRARY VERSION`, then
// `connection N` for each TLS connection.
//
//   POST /hash        `LENGTH SHA256` of the body
//   POST /echo        the body, sent back while it still arrives
//   POST /ask         asks for a client certificate once the head is read, by renegotiation, as IIS
//                     does for some folders; then as /hash
//   GET  /bytes/N/S   N bytes of the stream with seed S
//   GET  /drip/N/S    the same, written one byte at a time
//   GET  /EWS/Exchange.asmx  401, as Exchange answers who has not logged in
//   POST /login/M     the connection belongs to M from now on; a second login is refused (409)
//   POST /work/N      refused (401) before a login; the body must be M's stream (else 422);
//                     answers N bytes of M's stream. As NTLM does: the connection is the user.
'use strict';
var crypto = require('crypto');
var constants = require('constants');
var fs = require('fs');
var https = require('https');

var protocol = process.argv[4];
var others = { TLSv1: ['TLSv1_1', 'TLSv1_2'], TLSv1_1: ['TLSv1', 'TLSv1_2'], TLSv1_2: ['TLSv1', 'TLSv1_1'] }[protocol];
// Node 0.10 knows no secureProtocol for TLS 1.1 and 1.2, but all know these options.
var secureOptions = constants.SSL_OP_NO_SSLv2 | constants.SSL_OP_NO_SSLv3;
others.forEach(function (other) {
  secureOptions |= constants['SSL_OP_NO_' + other];
});

// The stream with a seed: the key stream of AES-128-CTR, its key the MD5 of the seed.
function Stream(seed) {
  var key = crypto.createHash('md5').update(String(seed)).digest();
  var zeroes = new Buffer(65536);
  zeroes.fill(0);
  var cipher = crypto.createCipheriv('aes-128-ctr', key, zeroes.slice(0, 16));
  this.next = function (length) {
    return cipher.update(zeroes.slice(0, Math.min(length, zeroes.length)));
  };
}

function refuse(response, status) {
  response.writeHead(status, { 'Content-Length': 0 });
  response.end();
}

function answer(response, text) {
  response.writeHead(200, { 'Content-Length': Buffer.byteLength(text) });
  response.end(text);
}

// Sends `left` bytes of a stream, no faster than the connection takes them.
function send(response, stream, left) {
  while (left > 0) {
    var piece = stream.next(left);
    left -= piece.length;
    if (!response.write(piece)) {
      response.once('drain', send.bind(null, response, stream, left));
      return;
    }
  }
  response.end();
}

function drip(response, bytes, from) {
  if (from === bytes.length) return response.end();
  response.write(bytes.slice(from, from + 1));
  setImmediate(drip, response, bytes, from + 1);
}

function hashed(stream, length) {
  var hash = crypto.createHash('sha256');
  for (var left = length; left > 0; ) {
    var piece = stream.next(left);
    hash.update(piece);
    left -= piece.length;
  }
  return hash.digest('hex');
}

function bodyHash(request, done) {
  var hash = crypto.createHash('sha256');
  var length = 0;
  request.on('data', function (piece) {
    hash.update(piece);
    length += piece.length;
  });
  request.on('end', function () {
    done(length, hash.digest('hex'));
  });
}

var routes = {
  hash: function (request, response) {
    bodyHash(request, function (length, hash) {
      answer(response, length + ' ' + hash);
    });
  },
  ask: function (request, response) {
    // The client's hello stands behind what was under way by then, which may be the whole body.
    var left = 2, renegotiated, told;
    function done() {
      left -= 1;
      if (left === 0) answer(response, renegotiated + ' ' + told);
    }
    // Not from within the parser: node 0.12 would read the next record here, and enter the parser again, which it
    // forbids itself (an assertion, and the process is gone).
    setImmediate(function () {
      request.connection.renegotiate({ requestCert: true, rejectUnauthorized: false }, function (error) {
        console.log('renegotiated ' + (error ? error.message : 'well'));
        renegotiated = !error;
        done();
      });
    });
    bodyHash(request, function (length, hash) {
      told = length + ' ' + hash;
      done();
    });
  },
  echo: function (request, response) {
    response.writeHead(200, { 'Content-Length': request.headers['content-length'] });
    request.pipe(response);
  },
  bytes: function (request, response, length, seed) {
    response.writeHead(200, { 'Content-Length': length });
    send(response, new Stream(seed), Number(length));
  },
  EWS: function (request, response) {
    response.writeHead(401, {
      Server: 'Microsoft-IIS/8.5',
      'WWW-Authenticate': ['Negotiate', 'NTLM'],
      'Content-Length': 0
    });
    response.end();
  },
  drip: function (request, response, length, seed) {
    response.writeHead(200, { 'Content-Length': length });
    drip(response, new Stream(seed).next(Number(length)), 0);
  },
  login: function (request, response, marker) {
    request.resume();
    if (request.connection.marker !== undefined) return refuse(response, 409);
    request.connection.marker = marker;
    answer(response, marker);
  },
  work: function (request, response, length) {
    var marker = request.connection.marker;
    bodyHash(request, function (received, hash) {
      if (marker === undefined) return refuse(response, 401);
      if (hash !== hashed(new Stream(marker), received)) return refuse(response, 422);
      response.writeHead(200, { 'Content-Length': length, 'X-Marker': marker });
      send(response, new Stream(marker), Number(length));
    });
  }
};

var settings = {
  key: fs.readFileSync(process.argv[2]),
  cert: fs.readFileSync(process.argv[3]),
  // All versions by the protocol's name, all but one switched off by the options.
  secureProtocol: 'SSLv23_method',
  secureOptions: secureOptions,
  ciphers: process.argv[5],
  honorCipherOrder: true
};

var server = https.createServer(settings, function (request, response) {
  var parts = request.url.split('/');
  var route = routes[parts[1]];
  if (!route) return refuse(response, 404);
  route(request, response, parts[2], parts[3]);
});

var connections = 0;
server.on('secureConnection', function () {
  connections += 1;
  console.log('connection ' + connections);
});
server.on('clientError', function (error) {
  console.log('client error ' + error.message);
});
server.timeout = 0;
server.listen(0, '127.0.0.1', 511, function () {
  console.log('listening ' + server.address().port + ' OpenSSL ' + process.versions.openssl);
});

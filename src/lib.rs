//! Accept TLS with rustls, open TLS with OpenSSL, copy bytes both ways, and say plainly what happened.
//!
//! # One connection's life
//!
//! ```text
//!             bridge::listener            bridge::session                        bridge::relay
//! client ───> accept, count ───> may it come in (bridge::admission)?
//!                                 │ no: alert
//!                                 ▼
//!                                PROXY header, if it comes from a load balancer
//!                                 │ none, or a bad one: alert
//!                                 ▼
//!                                ClientHello complete, acceptable?
//!                                 │ no: alert, the target never hears of it
//!                                 ▼
//!                                name looked up, TCP, TLS to the target ───────> target
//!                                 │ failed: a fatal alert takes the place of our ServerHello
//!                                 ▼
//!                                our ServerHello leaves, handshake ends
//!                                 │
//!                                 │   with client_ca the two change places, for the client must
//!                                 │   show its certificate before the target hears of it:
//!                                 │   handshake, then the target; a failed target ends the
//!                                 │   connection without close_notify
//!                                 │
//!                                 └──────────────> one task moves bytes, up and down,
//!                                                  until both sides have ended
//! ```
//!
//! * [`bridge::forwarder`] holds what connections begin with, and replaces it as a whole by a reload;
//!   [`bridge::served`] is a forwarder at work, which can be asked to reload and to drain.
//! * [`bridge::listener`] accepts on a forwarder's listening socket, which [`service::sockets`] has outlive
//!   the process. It knows nothing of TLS.
//! * [`bridge::threads`] are the threads that serve, and say which of them serves a new client.
//! * [`bridge::admission`] is asked by each connection whether it may come in, and has it wait or turned
//!   away; [`bridge::descriptors`] has its numbers fit into what the process may open.
//! * [`bridge::session`] leads one connection through the stages above, each with its own deadline,
//!   and writes the one log line that says how it went.
//! * [`bridge::origin`] is who the client is, by [`leg::proxy`] where a load balancer says so.
//! * [`bridge::resolver`] turns the target's name into addresses, one look-up a name at a time.
//! * [`bridge::dialer`] opens TCP and TLS to the target; [`bridge::failure`] is what it, or the
//!   session, has to say when that fails: whose fault, at which stage, the cause, the cure.
//! * [`bridge::relay`] moves bytes between two [`leg::Leg`]s. It knows no TLS either: a leg
//!   speaks the relay's own terms (fill, write, flush, end as close_notify, FIN or reset).
//! * [`bridge::watch`] looks at both legs meanwhile, and gives up a peer that has vanished without a word.
//! * [`tls::inbound`] is the client's leg (rustls), [`tls::outbound`] the target's (OpenSSL with the
//!   legacy switches). [`tls::trust`] judges the target's certificate, [`tls::identity`] is our own.
//!   [`tls::client_auth`] judges a client's. [`tls::explain`] turns any failure on either side into its
//!   cause and its cure.
//! * [`config`] turns a forwarder's TOML text into settings that can't hold a bad value.
//! * [`probe`] finds out what a server speaks: [`bridge::auto`] for what a forwarder needs, then
//!   [`tls::scan`] for what no forwarder would ask.
//! * [`cli`] is what an admin types; [`service`] is life under systemd, and the control socket, by
//!   which a command reaches the running process; [`observe`] is what the outside sees: the log, and what
//!   is counted of every connection for `status`, metrics and systemd.
//!   [`words`] makes the system's errors fit into our sentences.
//!
//! # What always holds
//!
//! * One client connection has exactly one target connection, never pooled, never shared: NTLM
//!   authenticates the connection, and a shared one would hand one user another's mailbox.
//! * No complete ClientHello, no connection to the target. No target, no ServerHello: a client is
//!   never "connected" to nothing. The one exception is a client that must show a certificate, which
//!   TLS 1.3 lets it do only after our ServerHello; no certificate, no connection to the target.
//! * Bytes pass unchanged and in order. Endings are passed on as they came, after every byte before
//!   them: close_notify as close_notify, FIN as FIN, a reset or a broken record as a reset. What an
//!   admin may have otherwise is in [`bridge::relay::Terms`].
//! * Verification never falls back to no verification.
//! * Everything that can fail at start fails before the service is ready; afterwards only
//!   connections fail, one at a time.

// A peer can cause an error, never a panic.
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod bridge;
pub mod cli;
pub mod config;
pub mod leg;
pub mod observe;
pub mod probe;
pub mod service;
pub mod tls;
pub mod words;

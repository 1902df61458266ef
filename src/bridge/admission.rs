//! Who is let in, how many at a time, and how those are told who are not.
//!
//! The listener accepts everybody: a client in the kernel's queue would be connected and never hear
//! a word. Each connection then asks here, in this order:
//!
//! | setting | taken | given back |
//! |---|---|---|
//! | `allow_clients` (behind a PROXY header, if one must come) | | |
//! | `accept_rate` | a turn | |
//! | `max_handshakes` | before the first byte is read | when both handshakes are done |
//! | `max_connections` | with an acceptable ClientHello, before the target is dialled | at the end of the connection |
//!
//! So clients that connect and say nothing take no place of a connection. Whoever finds no place
//! waits [`PATIENCE`] at most, all its waits together, first come first served; who could not have
//! its turn by then is refused at once. A refusal is a fatal alert in the clear, access_denied (49)
//! for `allow_clients` and internal_error (80) for the others, then a close that lets the client
//! read it.
//!
//! Those who wait before the handshake are 1,024 at most, and those being refused 256: whoever comes
//! beyond is closed at once without an alert. So a flood costs a known number of descriptors and of
//! memory. Each setting has one line in the log a minute, with the number of those left out since.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::descriptors::{Places, Room};
use super::gate::{Gate, Place};
use crate::config::Settings;
use crate::config::settings::Limits;
use crate::config::values::{Network, duration_text};
use crate::leg::socket::Socket;
use crate::tls::inbound::{self, Alert};

/// How long a client may wait for its places, all of them together.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// How often each setting may have a line in the log.
const QUIET: Duration = Duration::from_secs(60);

/// The limits of one forwarder, which a reload changes while it serves.
pub struct Admission {
    name: String,
    is_on_disk: bool,
    room: Mutex<Room>,
    handshakes: Gate,
    connections: Gate,
    waiting: Gate,
    refused: Gate,
    rate: Mutex<Rate>,
    log: Mutex<[Told; 4]>,
    turned_away: [AtomicU64; 4],
}

/// What keeps a client out; the index of its line in the log.
#[derive(Clone, Copy, Debug)]
enum Setting {
    AllowClients,
    AcceptRate,
    MaxHandshakes,
    MaxConnections,
}

impl Setting {
    const ALL: [Self; 4] = [Self::AllowClients, Self::AcceptRate, Self::MaxHandshakes, Self::MaxConnections];
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AllowClients => "allow_clients",
            Self::AcceptRate => "accept_rate",
            Self::MaxHandshakes => "max_handshakes",
            Self::MaxConnections => "max_connections",
        })
    }
}

/// A client that is refused.
#[must_use]
pub struct Refused {
    alert: Alert,
    /// Without one too many are being refused already.
    place: Option<Place>,
}

impl Refused {
    /// Tells the client and closes.
    pub async fn tell(self, socket: Socket) {
        if self.place.is_some() {
            inbound::refuse(socket, self.alert).await;
        }
    }
}

/// A client that was let in, and the places that it holds as long as this lives.
pub struct Visit<'a> {
    admission: &'a Admission,
    patience: Duration,
    handshake: Option<Place>,
    connection: Option<Place>,
}

impl Admission {
    /// Limits as the settings have them, with as many descriptors as they need.
    ///
    /// `is_on_disk`: whether commands know the forwarder by its name.
    pub fn new(name: String, is_on_disk: bool, settings: &Settings) -> Self {
        let Places { connections, handshakes, waiting, refused, .. } = Room::ENDLESS.places(&settings.limits);
        Self {
            name,
            is_on_disk,
            room: Mutex::new(Room::ENDLESS),
            handshakes: Gate::new(handshakes),
            connections: Gate::new(connections),
            waiting: Gate::new(waiting),
            refused: Gate::new(refused),
            rate: Mutex::new(Rate { per_second: settings.limits.accept_rate, due: Instant::now() }),
            log: Mutex::default(),
            turned_away: Default::default(),
        }
    }

    /// Puts other limits in force. Who is inside stays, even where the limits are smaller now.
    pub fn set(&self, settings: &Settings) {
        let limits = &settings.limits;
        let places = lock(&self.room).places(limits);
        self.connections.set(places.connections);
        self.handshakes.set(places.handshakes);
        self.waiting.set(places.waiting);
        self.refused.set(places.refused);
        lock(&self.rate).per_second = limits.accept_rate;
        self.warn_of_shortage(limits, &places);
    }

    /// The same where only so many descriptors may be used, from now on.
    pub fn fit(&self, room: Room, settings: &Settings) {
        *lock(&self.room) = room;
        self.set(settings);
    }

    /// How many clients each setting has turned away.
    pub fn refused(&self) -> BTreeMap<String, u64> {
        let count = |setting: Setting| self.turned_away[setting as usize].load(Relaxed);
        Setting::ALL.map(|setting| (setting.to_string(), count(setting))).into()
    }

    fn warn_of_shortage(&self, limits: &Limits, places: &Places) {
        let Some(shortage) = places.shortage else { return };
        let needed = shortage.needed;
        let hint = if self.is_on_disk {
            format!("systemctl edit ewsbridge@{}: [Service] LimitNOFILE={needed}", self.name)
        } else {
            format!("ulimit -n {needed} before it starts, LimitNOFILE={needed} in a unit; or smaller limits")
        };
        tracing::warn!(
            name: "limits_short",
            forwarder = %self.name,
            hint,
            "max_connections = {} and max_handshakes = {} need {needed} descriptors, and the limit is {}: in force are {} and {}",
            limits.connections, limits.handshakes, shortage.limit, places.connections, places.handshakes
        );
    }

    /// Whether a client with this address may come at all; no networks: anyone may.
    ///
    /// # Errors
    /// [`Refused`], to be told; the log has its line.
    pub fn allows(&self, networks: &[Network], client: SocketAddr) -> Result<(), Refused> {
        if networks.is_empty() || networks.iter().any(|network| network.contains(client.ip())) {
            return Ok(());
        }
        self.log(Setting::AllowClients, client, "the address is in none of its networks");
        Err(Refused { alert: Alert::AccessDenied, place: self.refused.try_enter() })
    }

    /// Lets a client begin its handshake, as soon as there is a place.
    ///
    /// # Errors
    /// [`Refused`], to be told; the log has its line.
    pub async fn enter(&self, client: SocketAddr) -> Result<Visit<'_>, Refused> {
        let began = Instant::now();
        let visit = |place| {
            let patience = PATIENCE.saturating_sub(began.elapsed());
            Visit { admission: self, patience, handshake: Some(place), connection: None }
        };
        let turn = lock(&self.rate).turn(began);
        let Some(turn) = turn else { return Err(self.refuse(Setting::AcceptRate, client)) };
        if turn.is_zero()
            && let Some(place) = self.handshakes.try_enter()
        {
            return Ok(visit(place));
        }
        let Some(_waiting) = self.waiting.try_enter() else {
            let setting = if turn.is_zero() { Setting::MaxHandshakes } else { Setting::AcceptRate };
            self.log(setting, client, "too many wait for their turn");
            return Err(Refused { alert: Alert::InternalError, place: None });
        };
        tokio::time::sleep(turn).await;
        match timeout(PATIENCE.saturating_sub(turn), self.handshakes.enter()).await {
            Ok(Some(place)) => Ok(visit(place)),
            Ok(None) | Err(_) => Err(self.refuse(Setting::MaxHandshakes, client)),
        }
    }

    fn refuse(&self, setting: Setting, client: SocketAddr) -> Refused {
        self.log_limit(setting, client);
        Refused { alert: Alert::InternalError, place: self.refused.try_enter() }
    }

    fn log_limit(&self, setting: Setting, client: SocketAddr) {
        let patience = duration_text(PATIENCE);
        let cause = match setting {
            Setting::MaxConnections => {
                format!("{} are open, and none ended within {patience}", self.connections.limit())
            }
            Setting::MaxHandshakes => {
                format!("{} are under way, and none ended within {patience}", self.handshakes.limit())
            }
            _ => format!("more than {} a second, for over {patience}", lock(&self.rate).per_second.unwrap_or(0)),
        };
        self.log(setting, client, &cause);
    }

    /// Writes the setting's line, if its last one is long enough ago.
    fn log(&self, setting: Setting, client: SocketAddr, cause: &str) {
        self.turned_away[setting as usize].fetch_add(1, Relaxed);
        let Some(suppressed) = lock(&self.log)[setting as usize].count(Instant::now()) else { return };
        let suppressed = (suppressed > 0).then_some(suppressed);
        tracing::warn!(
            name: "client_refused",
            forwarder = %self.name,
            %client,
            suppressed,
            hint = self.hint(setting, client),
            "{setting}: {cause}; a client was turned away"
        );
    }

    fn hint(&self, setting: Setting, client: SocketAddr) -> String {
        let value = match setting {
            Setting::AllowClients if self.is_on_disk => {
                return format!(
                    "if it may come: add {} to allow_clients, see: ewsbridge show {}",
                    client.ip(),
                    self.name
                );
            }
            Setting::AllowClients => {
                return format!("if it may come: add {} to --set allow_clients=", client.ip());
            }
            Setting::AcceptRate => u64::from(lock(&self.rate).per_second.unwrap_or(0)) * 2,
            Setting::MaxHandshakes => twice(self.handshakes.limit()),
            Setting::MaxConnections => twice(self.connections.limit()),
        };
        let command = if self.is_on_disk { format!("ewsbridge set {}", self.name) } else { "--set".to_owned() };
        format!("if so many are right: {command} {setting}={value}")
    }
}

fn twice(limit: usize) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX).saturating_mul(2)
}

impl Visit<'_> {
    /// [`Admission::allows`], for a client whose address is known only now.
    ///
    /// # Errors
    /// The same.
    pub fn allows(&self, networks: &[Network], client: SocketAddr) -> Result<(), Refused> {
        self.admission.allows(networks, client)
    }

    /// Takes the place of a connection, as soon as there is one.
    ///
    /// # Errors
    /// The alert that the client is to be told by; the log has its line.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the turn, and nothing else.
    pub async fn connect(&mut self, client: SocketAddr) -> Result<(), Alert> {
        let gate = &self.admission.connections;
        self.connection = match gate.try_enter() {
            Some(place) => Some(place),
            None => timeout(self.patience, gate.enter()).await.ok().flatten(),
        };
        if self.connection.is_none() {
            self.admission.log_limit(Setting::MaxConnections, client);
            return Err(Alert::InternalError);
        }
        Ok(())
    }

    /// Gives the place of a handshake to the next one.
    pub fn connected(&mut self) {
        self.handshake = None;
    }
}

/// Turns at even distances, of which a second's worth may be taken at once (a token bucket).
struct Rate {
    per_second: Option<u32>,
    /// When the next turn would be if all of them were waited for.
    due: Instant,
}

impl Rate {
    /// Takes a turn; gives back how long it is until then, nothing if it is longer than [`PATIENCE`].
    fn turn(&mut self, now: Instant) -> Option<Duration> {
        let Some(per_second) = self.per_second else { return Some(Duration::ZERO) };
        let distance = Duration::from_secs(1) / per_second;
        let due = self.due.max(now);
        let wait = due.saturating_duration_since(now + (Duration::from_secs(1) - distance));
        if wait > PATIENCE {
            return None;
        }
        self.due = due + distance;
        Some(wait)
    }
}

/// When a line was written, and how many were not since.
#[derive(Default)]
struct Told {
    at: Option<Instant>,
    suppressed: u64,
}

impl Told {
    /// Counts one more; gives back how many were left out before it, if it is time for a line.
    fn count(&mut self, now: Instant) -> Option<u64> {
        if self.at.is_some_and(|at| now.saturating_duration_since(at) < QUIET) {
            self.suppressed += 1;
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_of_turns_is_there_at_once_and_the_next_ones_come_at_even_distances() {
        let now = Instant::now();
        let mut rate = Rate { per_second: Some(4), due: now };
        let waits: Vec<_> = std::iter::from_fn(|| rate.turn(now)).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 250, 500, 750, 1000, 1250, 1500, 1750, 2000], "and not one more");
        let later = now + Duration::from_millis(250);
        assert_eq!(rate.turn(later).map(|wait| wait.as_millis()), Some(2000));
        assert_eq!(rate.turn(later), None);
    }

    #[test]
    fn idle_time_saves_no_more_than_a_second_of_turns() {
        let now = Instant::now();
        let mut rate = Rate { per_second: Some(3), due: now };
        let later = now + Duration::from_secs(3600);
        let at_once = std::iter::from_fn(|| rate.turn(later)).take_while(Duration::is_zero).count();
        assert_eq!(at_once, 3);
    }

    #[test]
    fn no_rate_is_no_limit() {
        let now = Instant::now();
        let mut rate = Rate { per_second: None, due: now };
        assert!((0..10_000).all(|_| rate.turn(now) == Some(Duration::ZERO)));
    }

    #[test]
    fn one_line_a_minute_and_the_next_one_has_the_number_left_out() {
        let now = Instant::now();
        let mut told = Told::default();
        assert_eq!(told.count(now), Some(0));
        assert_eq!(told.count(now + Duration::from_secs(1)), None);
        assert_eq!(told.count(now + Duration::from_millis(59_999)), None);
        assert_eq!(told.count(now + Duration::from_secs(60)), Some(2));
        assert_eq!(told.count(now + Duration::from_secs(120)), Some(0));
    }
}

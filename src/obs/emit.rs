//! What an event is, and the one function that lets it happen.

/// Something worth telling: a log line, a moved metric, or both.
pub trait Event {
    /// Moves the metrics of this event.
    fn measure(&self) {}
    /// Writes the log line of this event.
    fn log(&self) {}
}

/// Lets an event happen.
pub fn emit(event: impl Event) {
    event.measure();
    event.log();
}

/// Declares an event: its fields, its level, the text of its line and what it measures.
///
/// ```ignore
/// event! {
///     /// A remote host asked us to come back later.
///     RelayDeferred { message: IngestId, next_hop: String, reason: String }
///     info "delivery deferred"
///     |event| DELIVERIES.with_label_values(&["deferred"]).inc()
/// }
/// ```
/// Fields are written with `Display`. The level is `error` (an operator must act), `warn` (it heals by itself), `info` (one
/// line per transaction), `trace` (redacted protocol) or `silent` (a metric only).
macro_rules! event {
    ($(#[$doc:meta])* $name:ident { $($(#[$fdoc:meta])* $field:ident : $ty:ty),* $(,)? } $level:ident $text:literal $(|$event:ident| $measure:expr)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty),* }

        impl $crate::emit::Event for $name {
            $(fn measure(&self) { let $event = self; let _ = $event; $measure; })?
            fn log(&self) { $crate::emit::line!($level $text, $($field = self.$field),*); }
        }
    };
}

/// One log line at a level; `silent` writes none.
macro_rules! line {
    (silent $text:literal, $($field:ident = $value:expr),*) => { $(let _ = &$value;)* };
    (error $text:literal, $($field:ident = $value:expr),*) => { tracing::error!($($field = %$value,)* $text) };
    (warn $text:literal, $($field:ident = $value:expr),*) => { tracing::warn!($($field = %$value,)* $text) };
    (info $text:literal, $($field:ident = $value:expr),*) => { tracing::info!($($field = %$value,)* $text) };
    (trace $text:literal, $($field:ident = $value:expr),*) => { tracing::trace!($($field = %$value,)* $text) };
}

pub(crate) use {event, line};

//! Dates of the grammar: the days of SEARCH and the date-time of APPEND and INTERNALDATE.
//!
//! Apart from `wire/mime`, which reads the looser dates of message headers.

use jiff::Timestamp;
pub use jiff::civil::Date;

use jiff::civil::DateTime;
use jiff::tz::{Offset, TimeZone};
use posthouse_mail::UnixMillis;

use super::scan::{ParseError, Parsed, Scanner};

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

const DATE: ParseError = ParseError::Expected("a date such as 1-Feb-1994");
const DATE_TIME: ParseError = ParseError::Expected("a date-time such as \"17-Jul-1996 02:44:25 -0700\"");

/// RFC 3501 §9 `date`, with or without quotes.
pub fn parse_date(scanner: &mut Scanner<'_>) -> Parsed<Date> {
    let quoted = scanner.eat(b'"');
    let date = parse_day(scanner, DATE)?;
    if quoted && !scanner.eat(b'"') {
        return Err(DATE);
    }
    Ok(date)
}

/// RFC 3501 §9 `date-time`; a time before 1970 becomes 1970.
pub fn parse_date_time(scanner: &mut Scanner<'_>) -> Parsed<UnixMillis> {
    scanner.byte(b'"', "a quoted date-time")?;
    scanner.eat(b' ');
    let date = parse_day(scanner, DATE_TIME)?;
    scanner.space()?;
    let hour = digits(scanner, 2)?;
    scanner.byte(b':', "a colon in the time")?;
    let minute = digits(scanner, 2)?;
    scanner.byte(b':', "a colon in the time")?;
    let second = digits(scanner, 2)?.min(59);
    scanner.space()?;
    let negative = match (scanner.eat(b'+'), scanner.eat(b'-')) {
        (true, false) => false,
        (false, true) => true,
        _ => return Err(DATE_TIME),
    };
    let (zone_hours, zone_minutes) = (digits(scanner, 2)?, digits(scanner, 2)?);
    scanner.byte(b'"', "the end of the date-time")?;

    let small = |value: i32| i8::try_from(value).map_err(|_| DATE_TIME);
    let time = jiff::civil::Time::new(small(hour)?, small(minute)?, small(second)?, 0).map_err(|_| DATE_TIME)?;
    let zone = (zone_hours * 60 + zone_minutes) * 60;
    let offset = Offset::from_seconds(if negative { -zone } else { zone }).map_err(|_| DATE_TIME)?;
    let timestamp = offset.to_timestamp(DateTime::from_parts(date, time)).map_err(|_| DATE_TIME)?;
    Ok(UnixMillis(u64::try_from(timestamp.as_millisecond()).unwrap_or(0)))
}

/// The day in UTC; the store keeps no zone.
pub fn day_of(time: UnixMillis) -> Date {
    timestamp(time).to_zoned(TimeZone::UTC).date()
}

/// The day of Unix seconds, in UTC.
pub fn day_of_seconds(seconds: i64) -> Date {
    Timestamp::from_second(seconds).unwrap_or_default().to_zoned(TimeZone::UTC).date()
}

/// RFC 3501 §9 `date-time` with its quotes, in UTC.
pub fn format_date_time(time: UnixMillis) -> String {
    let at = timestamp(time).to_zoned(TimeZone::UTC);
    let month = usize::try_from(at.month() - 1).ok().and_then(|m| MONTHS.get(m)).copied().unwrap_or("Jan");
    let (day, year, hour, minute, second) = (at.day(), at.year(), at.hour(), at.minute(), at.second());
    format!("\"{day:02}-{month}-{year:04} {hour:02}:{minute:02}:{second:02} +0000\"")
}

/// The calendar day that a Date field names, whatever its zone (RFC 3501 §6.4.4 SENTON disregards time and zone):
/// `[Mon,] 7 Feb 1994 …`.
pub fn day_of_date_field(field: &[u8]) -> Option<Date> {
    let text = std::str::from_utf8(field).ok()?;
    let after_weekday = text.split_once(',').map_or(text, |(_, rest)| rest);
    let mut words = after_weekday.split_ascii_whitespace();
    let day: i8 = words.next()?.parse().ok()?;
    let month = month_number(words.next()?.get(..3)?.as_bytes())?;
    let year: i16 = words.next()?.parse().ok()?;
    // RFC 5322 §4.3: two digits below 50 are 20xx, other years below 1000 count from 1900.
    let year = match year {
        0..=49 => year + 2000,
        50..=999 => year + 1900,
        _ => year,
    };
    Date::new(year, month, day).ok()
}

fn timestamp(time: UnixMillis) -> Timestamp {
    i64::try_from(time.0).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok()).unwrap_or(Timestamp::MAX)
}

fn parse_day(scanner: &mut Scanner<'_>, error: ParseError) -> Parsed<Date> {
    let day = scanner.take_while(|b| b.is_ascii_digit());
    let day: i8 = ascii(day).filter(|d| d.len() <= 2).and_then(|d| d.parse().ok()).ok_or(error)?;
    scanner.byte(b'-', "a hyphen in the date")?;
    let month = month_number(scanner.take_while(|b| b.is_ascii_alphabetic())).ok_or(error)?;
    scanner.byte(b'-', "a hyphen in the date")?;
    let year = i16::try_from(digits(scanner, 4)?).map_err(|_| error)?;
    Date::new(year, month, day).map_err(|_| error)
}

fn month_number(name: &[u8]) -> Option<i8> {
    let place = MONTHS.iter().position(|month| month.as_bytes().eq_ignore_ascii_case(name))?;
    i8::try_from(place + 1).ok()
}

fn digits(scanner: &mut Scanner<'_>, count: usize) -> Parsed<i32> {
    let taken = scanner.rest().get(..count).filter(|d| d.iter().all(u8::is_ascii_digit)).ok_or(DATE_TIME)?;
    let value = ascii(taken).and_then(|d| d.parse().ok()).ok_or(DATE_TIME)?;
    for _ in 0..count {
        if let Some(digit) = scanner.peek() {
            scanner.eat(digit);
        }
    }
    Ok(value)
}

fn ascii(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn date_times_are_read_with_their_zone() {
        for (input, expect) in [
            ("\"17-Jul-1996 02:44:25 -0700\"", Some("\"17-Jul-1996 09:44:25 +0000\"")),
            ("\" 7-Feb-1994 00:00:00 +0100\"", Some("\"06-Feb-1994 23:00:00 +0000\"")),
            ("\"07-feb-2026 23:59:60 +0000\"", Some("\"07-Feb-2026 23:59:59 +0000\"")),
            ("\"01-Jan-1960 00:00:00 +0000\"", Some("\"01-Jan-1970 00:00:00 +0000\"")),
            ("\"31-Feb-2026 00:00:00 +0000\"", None),
            ("\"01-Jan-2026 25:00:00 +0000\"", None),
            ("\"01-Jan-2026 00:00:00 +9900\"", None),
            ("\"01-Jan-2026 00:00:00\"", None),
            ("01-Jan-2026", None),
        ] {
            let read = parse_date_time(&mut Scanner::new(input.as_bytes())).ok().map(format_date_time);
            assert_eq!(read.as_deref(), expect, "{input}");
        }
    }

    #[test]
    fn days_come_quoted_or_not() {
        let day = |text: &str| parse_date(&mut Scanner::new(text.as_bytes())).ok().map(|d| d.to_string());
        assert_eq!(day("1-Feb-1994").as_deref(), Some("1994-02-01"));
        assert_eq!(day("\"01-FEB-1994\"").as_deref(), Some("1994-02-01"));
        assert_eq!(day("\"1-Feb-1994"), None);
        assert_eq!(day("1-Foo-1994"), None);
        assert_eq!(day("001-Feb-1994"), None);
    }

    #[test]
    fn the_day_of_a_date_field_ignores_its_zone() {
        let day = |text: &str| day_of_date_field(text.as_bytes()).map(|d| d.to_string());
        assert_eq!(day("Mon, 7 Feb 1994 23:52:25 -0800").as_deref(), Some("1994-02-07"));
        assert_eq!(day("7 Feb 94 23:52 GMT").as_deref(), Some("1994-02-07"));
        assert_eq!(day("7 Feb 26 23:52 GMT").as_deref(), Some("2026-02-07"));
        assert_eq!(day("yesterday"), None);
        assert_eq!(day("7 ßü 1994"), None);
    }
}

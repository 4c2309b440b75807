//! Dates of header fields (RFC 5322 §3.3, obsolete forms of §4.3) to Unix seconds and back.
//!
//! Apart from a calendar library because real Date fields need a reader that forgives more than any of them does.

/// Reads a date; `None` where day, month, year or time are missing or out of range.
pub fn parse_date(value: &[u8]) -> Option<i64> {
    let value = &value[..value.len().min(DATE_MAX)];
    let text = without_comments(value);
    let mut date = Parts::default();
    for token in text.split(|c: char| c.is_whitespace() || c == ',').filter(|token| !token.is_empty()) {
        date.take(token)?;
    }
    date.seconds()
}

/// RFC 5322 §3.3, in UTC: `Fri, 21 Nov 1997 09:55:06 +0000`.
pub fn format_date(unix_seconds: i64) -> String {
    let days = unix_seconds.div_euclid(86400);
    let second = unix_seconds.rem_euclid(86400);
    let (year, month, day) = civil_from_days(days);
    let weekday = DAYS[usize::try_from((days + 4).rem_euclid(7)).unwrap_or(0)];
    let month = MONTHS[usize::try_from(month - 1).unwrap_or(0)];
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} +0000")
}

fn without_comments(value: &[u8]) -> String {
    let mut depth = 0_usize;
    let mut out = String::with_capacity(value.len());
    for byte in value {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            byte if depth == 0 && byte.is_ascii() => out.push(char::from(*byte)),
            _ => {}
        }
    }
    out
}

#[derive(Default)]
struct Parts {
    day: Option<i64>,
    month: Option<i64>,
    year: Option<i64>,
    /// Seconds since midnight.
    time: Option<i64>,
    /// Seconds east of UTC.
    offset: Option<i64>,
}

impl Parts {
    /// What a token is shows in its form, which reads `date-time`, asctime's order and most mistakes alike.
    fn take(&mut self, token: &str) -> Option<()> {
        let first = token.chars().next()?;
        if token.contains(':') {
            self.time = Some(self.time.map_or_else(|| read_time(token), Some)?);
        } else if matches!(first, '+' | '-') && self.time.is_some() {
            self.offset = self.offset.or_else(|| read_offset(token));
        } else if first.is_ascii_digit() {
            self.take_number(token)?;
        } else if let Some(month) = month_number(token).filter(|_| self.month.is_none()) {
            self.month = Some(month);
        } else if self.time.is_some() {
            self.offset = self.offset.or_else(|| zone_offset(token));
        }
        Some(())
    }

    fn take_number(&mut self, token: &str) -> Option<()> {
        // `12-Feb-2004`, as IMAP and some mailers write it.
        if let Some((day, rest)) = token.split_once('-') {
            let (month, year) = rest.split_once('-')?;
            self.day = Some(day.parse().ok()?);
            self.month = Some(month_number(month)?);
            self.year = Some(read_year(year)?);
            return Some(());
        }
        if self.day.is_none() && token.len() <= 2 {
            self.day = Some(token.parse().ok()?);
        } else if self.year.is_none() {
            self.year = Some(read_year(token)?);
        }
        Some(())
    }

    fn seconds(&self) -> Option<i64> {
        let (day, month, year) = (self.day?, self.month?, self.year?);
        if !(1..=31).contains(&day) {
            return None;
        }
        Some(days_from_civil(year, month, day) * 86400 + self.time? - self.offset.unwrap_or(0))
    }
}

/// RFC 5322 §4.3: two digits mean 1950 to 2049, three are years since 1900.
fn read_year(token: &str) -> Option<i64> {
    let year: i64 = token.parse().ok().filter(|year| (0..=9999).contains(year))?;
    match (token.len(), year) {
        (..=2, 0..=49) => Some(2000 + year),
        (..=3, _) => Some(1900 + year),
        _ => Some(year),
    }
}

fn read_time(token: &str) -> Option<i64> {
    let mut parts = token.split(':').map(|part| part.split('.').next().unwrap_or(part).parse::<i64>().ok());
    let hour = parts.next()??;
    let minute = parts.next()??;
    let second = parts.next().unwrap_or(Some(0))?;
    // RFC 5322 §3.3: 60 is a leap second.
    let in_range = (0..24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second);
    in_range.then_some(hour * 3600 + minute * 60 + second.min(59))
}

fn read_offset(token: &str) -> Option<i64> {
    let digits: String = token[1..].chars().filter(char::is_ascii_digit).collect();
    let number: i64 = digits.parse().ok().filter(|_| digits.len() == 4)?;
    let seconds = number / 100 * 3600 + number % 100 * 60;
    Some(if token.starts_with('-') { -seconds } else { seconds })
}

/// RFC 5322 §4.3 `obs-zone`; unknown names and military letters mean nothing reliable, so UTC.
fn zone_offset(token: &str) -> Option<i64> {
    let hours = match token.to_ascii_uppercase().as_str() {
        "EDT" => -4,
        "EST" | "CDT" => -5,
        "CST" | "MDT" => -6,
        "MST" | "PDT" => -7,
        "PST" => -8,
        _ => 0,
    };
    Some(hours * 3600)
}

fn month_number(token: &str) -> Option<i64> {
    let name = token.get(..3)?;
    let at = MONTHS.iter().position(|month| month.eq_ignore_ascii_case(name))?;
    i64::try_from(at + 1).ok()
}

/// Days since 1970-01-01 in the Gregorian calendar, by eras of 400 years that begin in March.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
/// Octets of a Date field that are looked at.
const DATE_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expect: Option<&str>) {
        let shown = parse_date(value.as_bytes()).map(format_date);
        assert_eq!(shown.as_deref(), expect, "{value:?}");
    }

    #[test]
    fn rfc5322_3_3_dates() {
        check("Fri, 21 Nov 1997 09:55:06 -0600", Some("Fri, 21 Nov 1997 15:55:06 +0000"));
        check("1 Jul 2003 10:52:37 +0200", Some("Tue, 01 Jul 2003 08:52:37 +0000"));
        check("Thu, 29 Feb 2024 23:59:60 +0000", Some("Thu, 29 Feb 2024 23:59:59 +0000"));
        check("Thu, 1 Jan 1970 00:00 +0000", Some("Thu, 01 Jan 1970 00:00:00 +0000"));
        check("31 Dec 1969 23:59:59 +0000", Some("Wed, 31 Dec 1969 23:59:59 +0000"));
    }

    #[test]
    fn rfc5322_4_3_obsolete_forms() {
        check("21 Nov 97 09:55:06 GMT", Some("Fri, 21 Nov 1997 09:55:06 +0000"));
        check("Fri, 21 Nov 97 09(comment):   55  :  06 -0600", None);
        check("Fri, 21 Nov 103 09:55:06 EST (Eastern)", Some("Fri, 21 Nov 2003 14:55:06 +0000"));
        check("Thu, 13 Feb 1969 23:32 -0330", Some("Fri, 14 Feb 1969 03:02:00 +0000"));
        check("Fri Feb 22 17:06:23 2008", Some("Fri, 22 Feb 2008 17:06:23 +0000"));
        check("12-Feb-2004 10:00:00 +0100", Some("Thu, 12 Feb 2004 09:00:00 +0000"));
    }

    #[test]
    fn what_is_no_date_is_none() {
        check("", None);
        check("yesterday", None);
        check("32 Jan 2020 10:00", None);
        check("1 Jan 2020", None);
        check("1 Jan 2020 25:00", None);
        check("1 Jan 99999 10:00", None);
    }

    proptest::proptest! {
        #[test]
        fn dates_are_read_back_from_their_text(seconds in -60_000_000_000_i64..250_000_000_000) {
            proptest::prop_assert_eq!(parse_date(format_date(seconds).as_bytes()), Some(seconds));
        }

        #[test]
        fn no_input_panics(value in proptest::collection::vec(proptest::num::u8::ANY, 0..80)) {
            parse_date(&value);
        }
    }
}

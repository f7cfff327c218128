//! Dates for templates that print them.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// A moment in UTC, by the calendar.
struct Moment {
    year: i64,
    /// 0 is January.
    month: usize,
    /// From 1.
    day: i64,
    /// 0 is Sunday.
    weekday: usize,
    /// From 1.
    day_of_year: i64,
    hour: i64,
    minute: i64,
    second: i64,
    microsecond: u32,
}

impl Moment {
    fn of(time: SystemTime) -> Self {
        let (seconds, microsecond) = match time.duration_since(UNIX_EPOCH) {
            Ok(after) => (i64::try_from(after.as_secs()).unwrap_or(0), after.subsec_micros()),
            // No template shows the time before 1970; whole seconds are enough there.
            Err(before) => (-i64::try_from(before.duration().as_secs()).unwrap_or(0), 0),
        };
        let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Years from March, so that the leap day is the last: eras of 400 years have 146,097 days.
        let shifted = days + 719_468;
        let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_march_year =
            day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_march_year + 2) / 153;
        let month = (march_month + 2) % 12;
        let year = era * 400 + year_of_era + i64::from(month < 2);
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        // March 1 is day 60, or 61 in leap years; January 1 is 306 days after March 1.
        let day_of_year = if month < 2 {
            day_of_march_year - 305
        } else {
            day_of_march_year + 60 + i64::from(leap)
        };
        Self {
            year,
            month: usize::try_from(month).unwrap_or(0),
            day: day_of_march_year - (153 * march_month + 2) / 5 + 1,
            // 1 January 1970 was a Thursday.
            weekday: usize::try_from((days + 4).rem_euclid(7)).unwrap_or(0),
            day_of_year,
            hour: second_of_day / 3_600,
            minute: second_of_day / 60 % 60,
            second: second_of_day % 60,
            microsecond,
        }
    }

    /// One directive of `strftime`; unknown ones stay as they are.
    fn field(&self, directive: char) -> String {
        let day = DAYS.get(self.weekday).copied().unwrap_or_default();
        let month = MONTHS.get(self.month).copied().unwrap_or_default();
        match directive {
            'Y' => format!("{:04}", self.year),
            'y' => format!("{:02}", self.year.rem_euclid(100)),
            'm' => format!("{:02}", self.month + 1),
            'd' => format!("{:02}", self.day),
            'e' => format!("{:2}", self.day),
            'j' => format!("{:03}", self.day_of_year),
            'H' => format!("{:02}", self.hour),
            'I' => format!("{:02}", (self.hour + 11) % 12 + 1),
            'M' => format!("{:02}", self.minute),
            'S' => format!("{:02}", self.second),
            'f' => format!("{:06}", self.microsecond),
            'p' => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            'A' => day.to_owned(),
            'a' => day.chars().take(3).collect(),
            'B' => month.to_owned(),
            'b' | 'h' => month.chars().take(3).collect(),
            'w' => self.weekday.to_string(),
            'u' => ((self.weekday + 6) % 7 + 1).to_string(),
            'F' => self.format("%Y-%m-%d"),
            'T' | 'X' => self.format("%H:%M:%S"),
            'R' => self.format("%H:%M"),
            'D' | 'x' => self.format("%m/%d/%y"),
            'c' => self.format("%a %b %e %H:%M:%S %Y"),
            // Python's `datetime.now()` knows no time zone.
            'z' | 'Z' => String::new(),
            'n' => "\n".to_owned(),
            't' => "\t".to_owned(),
            '%' => "%".to_owned(),
            other => format!("%{other}"),
        }
    }

    fn format(&self, format: &str) -> String {
        let mut out = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            match chars.next() {
                // glibc: without the padding.
                Some('-') => match chars.next() {
                    Some(directive) => {
                        let padded = self.field(directive);
                        let bare = padded.trim_start_matches(['0', ' ']);
                        let all_zero =
                            bare.is_empty() || !bare.starts_with(|c: char| c.is_ascii_digit());
                        let zero = padded.starts_with(['0', ' ']) && all_zero;
                        out.push_str(if zero { "0" } else { bare });
                    }
                    None => out.push_str("%-"),
                },
                Some(directive) => out.push_str(&self.field(directive)),
                None => out.push('%'),
            }
        }
        out
    }
}

/// Python's `strftime`, in UTC.
pub(super) fn strftime(format: &str, time: SystemTime) -> String {
    Moment::of(time).format(format)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64, format: &str) -> String {
        strftime(format, UNIX_EPOCH + Duration::from_secs(seconds))
    }

    #[test]
    fn dates_are_those_of_the_calendar() {
        // From Python: datetime.fromtimestamp(n, UTC).strftime("%F %T %j %a").
        assert_eq!(at(0, "%F %T %j %a"), "1970-01-01 00:00:00 001 Thu");
        assert_eq!(at(951_782_400, "%F %j %A"), "2000-02-29 060 Tuesday");
        assert_eq!(at(951_868_800, "%F %j"), "2000-03-01 061");
        assert_eq!(at(1_709_251_199, "%F %T"), "2024-02-29 23:59:59");
        assert_eq!(at(1_735_603_200, "%F %j"), "2024-12-31 366");
        assert_eq!(at(1_767_323_045, "%d %b %Y, %H:%M:%S"), "02 Jan 2026, 03:04:05");
        assert_eq!(at(4_107_542_400, "%F"), "2100-03-01");
    }

    #[test]
    fn padding_can_be_left_out() {
        assert_eq!(at(1_767_323_045, "%-d/%-m/%Y %-H %-I %p %%"), "2/1/2026 3 3 AM %");
        assert_eq!(at(0, "%-H:%-M"), "0:0");
        assert_eq!(at(0, "%"), "%");
        assert_eq!(at(0, "%-"), "%-");
        assert_eq!(at(0, "%Q%é"), "%Q%é");
    }
}

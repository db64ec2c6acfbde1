//! The schedule of a CronJob: five fields of lists, ranges and steps.

use super::node::Node;
use crate::sandbox::typed::cause::Cause;

const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const MONTHS: [&str; 13] = ["", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

/// What a field may hold: least, most, and names that stand for numbers by their place.
const FIELDS: [(u32, u32, &[&str]); 5] = [(0, 59, &[]), (0, 23, &[]), (1, 31, &[]), (1, 12, &MONTHS), (0, 6, &DAYS)];

pub fn schedule(schedule: &Node<'_>) -> Option<Cause> {
    let text = schedule.text();
    if text.is_empty() {
        return Some(Cause::required(&schedule.path, ""));
    }
    fault(text).map(|detail| Cause::invalid(&schedule.path, schedule.value, &detail))
}

/// What is wrong with a schedule, in the words of the server's parser.
fn fault(text: &str) -> Option<String> {
    if text.contains("TZ") {
        return Some("cannot use TZ or CRON_TZ in schedule, use timeZone field instead".to_owned());
    }
    if text.starts_with('@') {
        return None;
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Some(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    let ranges = fields.iter().zip(FIELDS).flat_map(|(field, bounds)| field.split(',').map(move |part| (part, bounds)));
    ranges.filter(|(part, _)| !part.is_empty()).find_map(|(part, bounds)| range(part, bounds).err())
}

fn range(text: &str, (least, most, names): (u32, u32, &[&str])) -> Result<(), String> {
    let (bounds, step) = text.split_once('/').map_or((text, None), |(bounds, step)| (bounds, Some(step)));
    let (low, high) = bounds.split_once('-').map_or((bounds, None), |(low, high)| (low, Some(high)));
    let (start, mut end) = if matches!(low, "*" | "?") {
        (least, most)
    } else {
        let start = number(low, names)?;
        match high {
            None => (start, start),
            Some(high) if high.contains('-') => return Err(format!("too many hyphens: {text}")),
            Some(high) => (start, number(high, names)?),
        }
    };
    if let Some(step) = step {
        if step.contains('/') {
            return Err(format!("too many slashes: {text}"));
        }
        if number(step, &[])? == 0 {
            return Err(format!("step of range should be a positive number: {text}"));
        }
        if high.is_none() {
            end = most;
        }
    }
    if start < least {
        return Err(format!("beginning of range ({start}) below minimum ({least}): {text}"));
    }
    if end > most {
        return Err(format!("end of range ({end}) above maximum ({most}): {text}"));
    }
    if start > end {
        return Err(format!("beginning of range ({start}) beyond end of range ({end}): {text}"));
    }
    Ok(())
}

fn number(text: &str, names: &[&str]) -> Result<u32, String> {
    let named = names.iter().position(|name| !name.is_empty() && text.eq_ignore_ascii_case(name));
    if let Some(number) = named.and_then(|at| u32::try_from(at).ok()) {
        return Ok(number);
    }
    let syntax = || format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax");
    let number: i64 = text.parse().map_err(|_| syntax())?;
    u32::try_from(number).map_err(|_| format!("negative number ({number}) not allowed: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_read_as_the_server_reads_them() {
        for (text, wrong) in [
            ("*/5 0-6 1,15 jan-mar MON", None),
            ("@daily", None),
            ("77 * * * *", Some("end of range (77) above maximum (59): 77")),
            ("* * 0 * *", Some("beginning of range (0) below minimum (1): 0")),
            ("* 6-2 * * *", Some("beginning of range (6) beyond end of range (2): 6-2")),
            ("*/0 * * * *", Some("step of range should be a positive number: */0")),
            ("* * * * x", Some("failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax")),
            ("1-2-3 * * * *", Some("too many hyphens: 1-2-3")),
            ("* * *", Some("expected exactly 5 fields, found 3: [* * *]")),
        ] {
            assert_eq!(fault(text).as_deref(), wrong, "{text}");
        }
    }
}

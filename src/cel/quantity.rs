//! Kubernetes' quantities (`1Gi`, `500m`, `1e3`), exactly: a whole number of 10⁻⁹.

/// In billionths: Kubernetes rounds up to those as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

const UNIT: i128 = 1_000_000_000;
/// More would not fit.
const WHOLE_DIGITS_MAX: usize = 28;

impl Quantity {
    /// `None` if the text is no quantity (resource.Quantity of apimachinery).
    pub fn parse(text: &str) -> Option<Quantity> {
        let (sign, digits) = match text.as_bytes().first()? {
            b'-' => (-1, &text[1..]),
            b'+' => (1, &text[1..]),
            _ => (1, text),
        };
        let end = digits.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(digits.len());
        let (number, suffix) = digits.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && fraction.is_empty())
            || fraction.contains('.')
            || whole.len() > WHOLE_DIGITS_MAX
            || fraction.len() > 18
        {
            return None;
        }
        let (factor, divisor) = scale(suffix)?;
        let mantissa: i128 = format!("{whole}{fraction}").parse().ok()?;
        let below = 10_i128.checked_pow(u32::try_from(fraction.len()).ok()?)?.checked_mul(divisor)?;
        let billionths = mantissa.checked_mul(factor)?.checked_mul(UNIT)?;
        // what is smaller than a billionth is rounded away from zero
        let rounded = billionths / below + i128::from(billionths % below != 0);
        Some(Quantity(sign * rounded))
    }

    pub fn is_integer(self) -> bool {
        self.0 % UNIT == 0 && i64::try_from(self.0 / UNIT).is_ok()
    }

    pub fn as_integer(self) -> Option<i64> {
        if self.is_integer() { i64::try_from(self.0 / UNIT).ok() } else { None }
    }

    pub fn as_float(self) -> f64 {
        self.0 as f64 / UNIT as f64
    }

    pub fn sign(self) -> i64 {
        self.0.signum() as i64
    }

    pub fn add(self, other: Quantity) -> Option<Quantity> {
        self.0.checked_add(other.0).map(Quantity)
    }

    pub fn subtract(self, other: Quantity) -> Option<Quantity> {
        self.0.checked_sub(other.0).map(Quantity)
    }

    pub fn of(whole: i64) -> Quantity {
        Quantity(i128::from(whole) * UNIT)
    }
}

/// What a suffix multiplies and divides by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let power = |base: i128, exponent: u32| Some((base.checked_pow(exponent)?, 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, UNIT)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => power(10, 3),
        "M" => power(10, 6),
        "G" => power(10, 9),
        "T" => power(10, 12),
        "P" => power(10, 15),
        "E" => power(10, 18),
        "Ki" => power(2, 10),
        "Mi" => power(2, 20),
        "Gi" => power(2, 30),
        "Ti" => power(2, 40),
        "Pi" => power(2, 50),
        "Ei" => power(2, 60),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let magnitude = exponent.unsigned_abs();
            if magnitude as usize > WHOLE_DIGITS_MAX {
                return None;
            }
            let factor = 10_i128.pow(magnitude);
            Some(if exponent < 0 { (1, factor) } else { (factor, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_worth_what_they_are_worth_in_kubernetes() {
        for (a, b) in [
            ("1Gi", "1024Mi"),
            ("500m", "0.5"),
            ("1e3", "1k"),
            ("1E", "1000P"),
            ("-2", "-2000m"),
            ("1500m", "1.5"),
            ("1n", "0.000000001"),
        ] {
            assert_eq!(Quantity::parse(a).unwrap(), Quantity::parse(b).unwrap(), "{a} {b}");
        }
        for text in ["", "Gi", "1GiB", "1.2.3", "one", "1 Gi", "--1", "1e99"] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
        assert_eq!(Quantity::parse("2").unwrap().as_integer(), Some(2));
        assert_eq!(Quantity::parse("500m").unwrap().as_integer(), None);
        assert!(Quantity::parse("1Mi").unwrap() > Quantity::parse("1M").unwrap());
    }
}

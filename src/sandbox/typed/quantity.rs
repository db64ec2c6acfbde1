//! Amounts of resources: `100m`, `1.5Gi`, `2e3`.
//!
//! In: text. Out: an exact amount that compares, and its canonical form as the API server writes it. See "Quantity"
//! in the Kubernetes API reference.

use std::cmp::Ordering;
use std::fmt;

/// An amount in thousand-millionths, with the way in which it was written.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    form: Form,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Binary,
    Decimal,
    Exponent,
}

const NANO: i128 = 1_000_000_000;
/// Larger amounts are cut to this, as the server does (2^63 - 1).
const AMOUNT_MAX: i128 = i64::MAX as i128 * NANO;
const BINARY: [(&str, u32); 6] = [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
/// Suffixes with their powers of ten, largest first.
const DECIMAL: [(&str, i32); 10] =
    [("E", 18), ("P", 15), ("T", 12), ("G", 9), ("M", 6), ("k", 3), ("", 0), ("m", -3), ("u", -6), ("n", -9)];

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Form,
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

impl Quantity {
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
            return Err(QuantityError::Form);
        }
        if !suffix.chars().all(|c| c.is_ascii_digit() || "eEinumkKMGTP+-".contains(c)) {
            return Err(QuantityError::Form);
        }
        let (form, binary, ten) = Self::suffix(suffix).ok_or(QuantityError::Suffix)?;

        // Digits beyond what fits are rounded up, away from zero, as the server does.
        let digits: String = whole.chars().chain(fraction.chars()).skip_while(|c| *c == '0').collect();
        let scale = 9 + ten - i32::try_from(fraction.len()).unwrap_or(i32::MAX / 2);
        let mut nano: i128 = if digits.is_empty() {
            0
        } else if digits.len() > 30 || i32::try_from(digits.len()).unwrap_or(i32::MAX) + scale > 36 {
            AMOUNT_MAX
        } else {
            let amount: i128 = digits.parse().map_err(|_| QuantityError::Form)?;
            let amount = amount.checked_shl(binary).unwrap_or(AMOUNT_MAX);
            match u32::try_from(scale) {
                Ok(scale) => amount.checked_mul(10i128.pow(scale)).unwrap_or(AMOUNT_MAX),
                Err(_) if scale < -36 => 1,
                Err(_) => {
                    let unit = 10i128.pow(scale.unsigned_abs());
                    amount / unit + i128::from(amount % unit != 0)
                }
            }
        };
        nano = nano.min(AMOUNT_MAX);
        if text.starts_with('-') {
            nano = -nano;
        }
        Ok(Self { nano, form })
    }

    /// The way of writing, the power of two and the power of ten.
    fn suffix(suffix: &str) -> Option<(Form, u32, i32)> {
        if let Some((_, bits)) = BINARY.iter().find(|(name, _)| *name == suffix) {
            return Some((Form::Binary, *bits, 0));
        }
        if let Some((_, ten)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
            return Some((Form::Decimal, 0, *ten));
        }
        let exponent = suffix.strip_prefix(['e', 'E'])?;
        exponent.parse().ok().map(|ten| (Form::Exponent, 0, ten))
    }

    pub fn is_negative(&self) -> bool {
        self.nano < 0
    }

    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nano.cmp(&other.nano)
    }
}

/// The canonical form: no fraction, the largest suffix that keeps the amount exact.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        let (amount, sign) = (self.nano.unsigned_abs(), if self.nano < 0 { "-" } else { "" });
        let unit = NANO.unsigned_abs();
        if self.form == Form::Binary && amount.is_multiple_of(unit) && amount / unit >= 1024 {
            let amount = amount / unit;
            let (suffix, bits) = BINARY
                .iter()
                .rev()
                .find(|(_, bits)| amount.is_multiple_of(1 << bits))
                .map_or(("", 0), |(suffix, bits)| (*suffix, *bits));
            return write!(f, "{sign}{}{suffix}", amount >> bits);
        }
        for (suffix, ten) in DECIMAL {
            let unit = 10u128.pow((ten + 9).unsigned_abs());
            if amount.is_multiple_of(unit) {
                let amount = amount / unit;
                return match (self.form, ten) {
                    (Form::Exponent, 1..) => write!(f, "{sign}{amount}e{ten}"),
                    _ => write!(f, "{sign}{amount}{suffix}"),
                };
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_in_their_canonical_form() {
        for (text, canonical) in [
            ("0.5", "500m"),
            ("1500m", "1500m"),
            ("2000m", "2"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("1000000", "1M"),
            ("100Mi", "100Mi"),
            ("0", "0"),
            ("0Gi", "0"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("512", "512"),
            ("0.5Ki", "512"),
            ("-1", "-1"),
            ("+1", "1"),
            ("1k", "1k"),
            (".5", "500m"),
            ("0.0000000001", "1n"),
        ] {
            assert_eq!(Quantity::parse(text).map(|q| q.to_string()), Ok(canonical.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", "lots", "1.2.3", "1 Gi", "Gi"] {
            assert_eq!(Quantity::parse(text), Err(QuantityError::Form), "{text}");
        }
        for text in ["1GiB", "1KI", "1KM", "1e"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_compare_by_value() {
        let q = |text| Quantity::parse(text).expect("an amount");
        assert_eq!(q("1"), q("1000m"));
        assert!(q("1Gi") > q("1G"));
        assert!(q("99999999999999999999999") >= q("1E"));
    }
}

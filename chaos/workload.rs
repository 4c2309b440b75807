//! Messages that prove themselves: a try names itself in `X-Try`, a body carries its own sum.

use rand::rngs::StdRng;
use rand::{Rng, RngCore as _};

/// The header field that names a try.
pub const TRY_FIELD: &str = "X-Try: ";
const SUM_FIELD: &str = "X-Sum: ";

const WORDS: [&str; 16] = [
    "letter", "coach", "horse", "stable", "road", "inn", "seal", "paper", "lantern", "river", "bridge", "winter",
    "news", "answer", "harbour", "tomorrow",
];

/// Lines of words, so that it compresses as mail does; `size` octets or a few more.
fn text(random: &mut StdRng, size: usize) -> String {
    let mut text = String::with_capacity(size + 80);
    while text.len() < size {
        let line_end = text.len() + random.random_range(30..70);
        while text.len() < line_end {
            text.push_str(WORDS[random.random_range(0..WORDS.len())]);
            text.push(' ');
            // Some noise, as encoded attachments have.
            if random.random_ratio(1, 4) {
                text.push_str(&format!("{:x} ", random.random::<u64>()));
            }
        }
        text.push_str("\r\n");
    }
    text
}

/// A message body, header fields included, whose sum stands in it.
pub fn body(random: &mut StdRng, size: usize, author: &str) -> Vec<u8> {
    let text = text(random, size.saturating_sub(120));
    let sum = sum(text.as_bytes());
    format!("From: {author}\r\nSubject: chaos\r\n{SUM_FIELD}{sum:016x}\r\n\r\n{text}").into_bytes()
}

/// Sizes of mail: mostly small, some large, a few over several frames.
pub fn size(random: &mut StdRng) -> usize {
    match random.random_range(0..20) {
        0..12 => random.random_range(300..8_000),
        12..18 => random.random_range(8_000..60_000),
        _ => random.random_range(60_000..400_000),
    }
}

/// A body as mail on a server is: sizes log-normal with a median of 6 kB and a mean of some 73 kB, half of it text, half
/// base64 of what can't be packed.
pub fn mail(random: &mut StdRng, author: &str) -> Vec<u8> {
    let size = mail_size(random);
    if random.random() {
        return body(random, size, author);
    }
    let mut body =
        format!("From: {author}\r\nSubject: chaos\r\nContent-Transfer-Encoding: base64\r\n\r\n").into_bytes();
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    while body.len() < size {
        body.extend((0..76).map(|_| ALPHABET[random.random_range(0..ALPHABET.len())]));
        body.extend_from_slice(b"\r\n");
    }
    body
}

/// Sizes as `mail` has them, of octets that can't be packed.
pub fn noise(random: &mut StdRng, _: &str) -> Vec<u8> {
    let mut body = vec![0; mail_size(random)];
    random.fill_bytes(&mut body);
    body
}

fn mail_size(random: &mut StdRng) -> usize {
    const MEDIAN: f64 = 6000.0;
    const SPREAD: f64 = 2.236;
    const MAX: f64 = 5_000_000.0;
    // Box and Muller: a normal draw from two even ones.
    let (a, b): (f64, f64) = (random.random_range(f64::EPSILON..1.0), random.random());
    let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
    (MEDIAN * (SPREAD * normal).exp()).clamp(300.0, MAX) as usize
}

/// The name of a message's try, its sum checked.
pub fn verify(message: &[u8]) -> Result<String, &'static str> {
    let end = message.windows(4).position(|octets| octets == b"\r\n\r\n").ok_or("no end of the header")?;
    let header = std::str::from_utf8(&message[..end]).map_err(|_| "the header is no text")?;
    let field = |name: &str| header.split("\r\n").find_map(|line| line.strip_prefix(name));
    let name = field(TRY_FIELD).ok_or("no try is named")?;
    let expected = field(SUM_FIELD).ok_or("no sum")?;
    let found = sum(&message[end + 4..]);
    if format!("{found:016x}") == expected { Ok(name.to_owned()) } else { Err("the sum is wrong") }
}

/// FNV-1a: enough to find a body that is not the one that was sent.
fn sum(octets: &[u8]) -> u64 {
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |sum, octet| (sum ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn a_message_proves_itself() {
        let mut random = StdRng::seed_from_u64(1);
        let body = body(&mut random, 5000, "a@example.org");
        assert!((4500..6000).contains(&body.len()));
        let mut message = [format!("{TRY_FIELD}r1-7\r\n").as_bytes(), &body].concat();
        assert_eq!(verify(&message).as_deref(), Ok("r1-7"));
        message[3000] ^= 1;
        assert_eq!(verify(&message), Err("the sum is wrong"));
        assert_eq!(verify(&message[..2000]), Err("the sum is wrong"));
        assert_eq!(verify(&body), Err("no try is named"));
    }
}

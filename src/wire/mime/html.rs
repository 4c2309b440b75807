//! HTML to the text that a reader sees, roughly: for search and filters, not for display.
//!
//! One pass without a tree, since a search needs words only and hostile markup must cost no more than its length.

/// Drops tags, comments, scripts and styles, undoes the usual character references. At most `max` octets.
pub fn html_to_text(html: &str, max: usize) -> String {
    let mut out = String::with_capacity(html.len().min(max));
    let mut rest = html;
    while let Some(at) = rest.find(['<', '&']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if out.len() >= max {
            break;
        }
        rest = match rest.as_bytes().first() {
            Some(b'&') => reference(rest, &mut out),
            _ => tag(rest, &mut out),
        };
    }
    if out.len() < max {
        out.push_str(rest);
    }
    let mut end = out.len().min(max);
    while !out.is_char_boundary(end) {
        end -= 1;
    }
    out.truncate(end);
    out
}

/// Passes over what begins with `<`; gives what follows it.
fn tag<'a>(rest: &'a str, out: &mut String) -> &'a str {
    if let Some(comment) = rest.strip_prefix("<!--") {
        return comment.find("-->").map_or("", |end| &comment[end + 3..]);
    }
    let name = &rest[1..];
    let closing = name.starts_with('/');
    let name = name.strip_prefix('/').unwrap_or(name);
    let length = name.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(name.len());
    let name = &name[..length];
    if name.is_empty() && !rest.starts_with("<!") && !rest.starts_with("<?") {
        out.push('<');
        return &rest[1..];
    }
    let after = rest.find('>').map_or("", |end| &rest[end + 1..]);
    if !closing && ["script", "style"].iter().any(|hidden| name.eq_ignore_ascii_case(hidden)) {
        return after_element(after, name);
    }
    // Inline tags may stand within a word; any other one ends it.
    if !INLINE.iter().any(|inline| name.eq_ignore_ascii_case(inline)) {
        out.push(if name.eq_ignore_ascii_case("td") { ' ' } else { '\n' });
    }
    after
}

/// What follows the end tag of an element whose content is no text.
fn after_element<'a>(rest: &'a str, name: &str) -> &'a str {
    let mut from = 0;
    while let Some(at) = rest[from..].find("</") {
        let start = from + at + 2;
        let candidate = rest.get(start..start + name.len());
        if candidate.is_some_and(|candidate| candidate.eq_ignore_ascii_case(name)) {
            return rest[start..].find('>').map_or("", |end| &rest[start + end + 1..]);
        }
        from = start;
    }
    ""
}

/// Undoes a character reference at the start; one that is none stays as it is.
fn reference<'a>(rest: &'a str, out: &mut String) -> &'a str {
    let window = rest.char_indices().nth(REFERENCE_MAX).map_or(rest, |(end, _)| &rest[..end]);
    let Some(end) = window.find(';') else {
        out.push('&');
        return &rest[1..];
    };
    let name = &rest[1..end];
    let character = match name.strip_prefix('#') {
        Some(number) => match number.strip_prefix(['x', 'X']) {
            Some(hex) => u32::from_str_radix(hex, 16).ok().and_then(char::from_u32),
            None => number.parse().ok().and_then(char::from_u32),
        },
        None => NAMED.iter().find(|(known, _)| *known == name).map(|(_, character)| *character),
    };
    match character {
        Some(character) => {
            out.push(character);
            &rest[end + 1..]
        }
        None => {
            out.push('&');
            &rest[1..]
        }
    }
}

const REFERENCE_MAX: usize = 12;
const INLINE: [&str; 14] =
    ["a", "b", "i", "u", "s", "em", "strong", "span", "font", "small", "big", "sub", "sup", "wbr"];
const NAMED: [(&str, char); 16] = [
    ("amp", '&'),
    ("lt", '<'),
    ("gt", '>'),
    ("quot", '"'),
    ("apos", '\''),
    ("nbsp", ' '),
    ("auml", 'ä'),
    ("ouml", 'ö'),
    ("uuml", 'ü'),
    ("Auml", 'Ä'),
    ("Ouml", 'Ö'),
    ("Uuml", 'Ü'),
    ("szlig", 'ß'),
    ("eacute", 'é'),
    ("egrave", 'è'),
    ("euro", '€'),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(html: &str, expect: &str) {
        assert_eq!(html_to_text(html, 1000), expect, "{html:?}");
    }

    #[test]
    fn words_stay_and_markup_goes() {
        check("a<b>b</b>c", "abc");
        check("<p>a</p>b", "\na\nb");
        check("a &amp; b &#65;&#x42; &unknown; &", "a & b AB &unknown; &");
        check("<style>p {}</style>a<SCRIPT>x < y</Script >b<!-- c -->d", "abd");
        check("1 < 2", "1 < 2");
        check("<unclosed", "\n");
    }

    #[test]
    fn hostile_markup_costs_its_length() {
        html_to_text(&"<script></".repeat(50_000), 1_000_000);
        html_to_text(&"&".repeat(500_000), 1_000_000);
        html_to_text(&"<a ".repeat(200_000), 1_000_000);
        assert!(html_to_text(&"é".repeat(1000), 101).len() <= 101);
    }
}

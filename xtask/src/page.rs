//! Pages written by people in which a part is written by a run: the part between two comments is replaced, the rest kept.

use std::fs;
use std::path::Path;

use crate::Stop;

/// Puts `text` between `<!-- begin: name -->` and `<!-- end: name -->` of the page.
///
/// # Errors
/// [`Stop::Setup`] when the page can't be read or written, or does not have both comments once.
pub(crate) fn replace(page: &Path, name: &str, text: &str) -> Result<(), Stop> {
    let shown = page.display();
    let old = fs::read_to_string(page).map_err(|error| Stop::Setup(format!("cannot read {shown}: {error}")))?;
    let new = replaced(&old, name, text).ok_or_else(|| {
        Stop::Setup(format!("{shown} needs the lines `<!-- begin: {name} -->` and `<!-- end: {name} -->`, once each"))
    })?;
    fs::write(page, new).map_err(|error| Stop::write(page, &error))
}

fn replaced(old: &str, name: &str, text: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- begin: {name} -->\n"), format!("<!-- end: {name} -->"));
    let (before, rest) = old.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    if after.contains(&begin) || after.contains(&end) {
        return None;
    }
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_comments_is_replaced() {
        let page = "# T\n<!-- begin: a -->\nold\n<!-- end: a -->\ntext\n<!-- begin: b -->\n<!-- end: b -->\n";
        let new = replaced(page, "a", "new\n").unwrap();
        assert_eq!(new, "# T\n<!-- begin: a -->\n\nnew\n\n<!-- end: a -->\ntext\n<!-- begin: b -->\n<!-- end: b -->\n");
        assert_eq!(replaced(&new, "a", "new").unwrap(), new);
    }

    #[test]
    fn a_page_without_the_comments_or_with_two_is_refused() {
        assert_eq!(replaced("text", "a", "new"), None);
        let twice = "<!-- begin: a -->\n<!-- end: a -->\n".repeat(2);
        assert_eq!(replaced(&twice, "a", "new"), None);
    }
}

//! Columns of text, laid out as Go's `text/tabwriter` does.

use super::plain::plain;

/// A table that is printed once all its rows are known.
#[derive(Clone, Debug)]
pub struct Table {
    padding: usize,
    rows: Vec<Vec<String>>,
}

/// Blanks after the widest cell of a column, in most tables.
pub const WIDE: usize = 5;
/// The same in tables of listeners and of versions.
pub const NARROW: usize = 1;

impl Table {
    /// An empty table.
    #[must_use]
    pub const fn new(padding: usize) -> Self {
        Self { padding, rows: Vec::new() }
    }

    /// Adds a row; cells may have what others have written.
    pub fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        let cell = |cell: C| {
            let text = cell.into();
            plain(&text).into_owned()
        };
        self.rows.push(cells.into_iter().map(cell).collect());
    }

    /// The text: the last cell of a row belongs to no column. A column goes as far as
    /// there are neighbouring rows that have a cell after it.
    #[must_use]
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut widths = vec![Vec::new(); self.rows.len()];
        for column in 0..columns.saturating_sub(1) {
            let reaches = |row: &Vec<String>| row.len() > column + 1;
            let mut at = 0;
            while at < self.rows.len() {
                let block = self.rows[at..].iter().take_while(|row| reaches(row)).count();
                let cells = self.rows[at..at + block].iter().map(|row| row[column].chars().count());
                let width = cells.max().unwrap_or(0) + self.padding;
                for one in &mut widths[at..at + block] {
                    one.push(width);
                }
                at += block.max(1);
            }
        }
        let mut text = String::new();
        for (row, widths) in self.rows.iter().zip(&widths) {
            for (index, cell) in row.iter().enumerate() {
                text += cell;
                if let Some(width) = widths.get(index) {
                    text.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.chars().count())));
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(WIDE);
        table.row(["NAME", "X"]);
        table.row(["é", ""]);
        table.row(["longer", "2"]);
        assert_eq!(table.render(), "NAME       X\né          \nlonger     2\n");
    }

    #[test]
    fn a_cell_moves_no_cursor() {
        let mut table = Table::new(NARROW);
        table.row(["1.32\x1b[2J", "x"]);
        assert_eq!(table.render(), "1.32\u{fffd}[2J x\n");
    }

    #[test]
    fn a_row_of_fewer_cells_ends_a_column() {
        let mut table = Table::new(NARROW);
        table.row(["a", "b", "c"]);
        table.row(["long", "line"]);
        table.row(["ends here"]);
        table.row(["x", "y", "z"]);
        assert_eq!(table.render(), "a    b c\nlong line\nends here\nx y z\n");
        assert_eq!(Table::new(NARROW).render(), "");
    }
}

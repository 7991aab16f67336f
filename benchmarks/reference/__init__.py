"""Published procedures, written out dense and plain as their papers have them, to be measured against."""

"""What a run leaves to look at: findings on the validation images, pictures of them, one page with it all.

validation.json   what the trained file makes of the validation images
confusion.csv     images of each class (row) by the class they were taken for (column)
classes.csv       images, recall and precision of each class
skips.csv         what each skip adds, relative to what it is added to
confusion.png, skips.png, mistakes.png
report.html       the page: self-contained, no script, nothing loaded from anywhere
"""

from graftonnx.training.report.writing import rewrite_report, write_report

__all__ = ["rewrite_report", "write_report"]

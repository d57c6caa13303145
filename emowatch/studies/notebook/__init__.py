"""The notebook study: emotions and appraisals of crowd-enVENT by layer, and what moves them."""

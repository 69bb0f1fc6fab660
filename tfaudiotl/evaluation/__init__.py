"""How good a classifier is: measures, figures and the report. Needs neither TensorFlow nor Keras."""

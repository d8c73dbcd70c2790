"""The recipe of the model that ships with textsam: `recipe` the settings, `stages` their order."""

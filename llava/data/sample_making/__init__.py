"""Making the sample benchmark that ships in `llava/data/samples`: drawn scenes, and questions in a YAML file."""

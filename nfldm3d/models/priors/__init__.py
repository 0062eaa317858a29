"""Networks that know pictures: the prior that sharpens scenes, and the restorer of their renders."""
